// What a program on Restate's TypeScript client does, line by line: `node typescript_client.mjs URL`. Prints JSON.
import * as clients from "@restatedev/restate-sdk-clients";

const ingress = clients.connect({ url: process.argv[2] });
const said = {};

const greeter = ingress.serviceClient({ name: "Greeter" });
said.call = await greeter.greet("Ann");
said.nothing = (await greeter.nothing()) ?? null;
said.failure = await greeter.fail().catch((error) => ({ status: error.status, body: JSON.parse(error.responseText) }));

const counter = ingress.objectClient({ name: "Counter" }, "a/b é");
said.first = await counter.add(2, clients.rpc.opts({ idempotencyKey: "k" }));
said.repeated = await counter.add(2, clients.rpc.opts({ idempotencyKey: "k" }));
said.headers = await counter.headers(clients.rpc.opts({ headers: { "x-tenant": "t" } }));

const sender = ingress.objectSendClient({ name: "Counter" }, "z");
const sent = await sender.add(5, clients.rpc.sendOpts({ idempotencyKey: "q" }));
said.sent = sent.status;
said.again = (await sender.add(5, clients.rpc.sendOpts({ idempotencyKey: "q" }))).status;
said.result = await ingress.result(sent);
said.delayed = Boolean((await sender.add(5, clients.rpc.sendOpts({ delay: 60_000 }))).executionTime);

const signup = ingress.workflowClient({ name: "Signup" }, "ann");
said.submitted = (await signup.workflowSubmit("a@example.org")).status;
said.resubmitted = (await signup.workflowSubmit("a@example.org")).status;
said.early = (await signup.workflowOutput()).ready;
await signup.click("!");
said.attached = await signup.workflowAttach();
said.output = (await signup.workflowOutput()).result;

for (const settle of [
  (id) => ingress.resolveAwakeable(id, { yes: true }),
  (id) => ingress.rejectAwakeable(id, "no"),
]) {
  const key = settle.toString().includes("reject") ? "rejected" : "resolved";
  const waiting = ingress.objectClient({ name: "Counter" }, key).wait().catch((error) => error.status);
  let id = "";
  while (!id) id = await ingress.objectClient({ name: "Counter" }, `kept by ${key}`).kept();
  await settle(id);
  said[key] = await waiting;
}
console.log(JSON.stringify(said));
