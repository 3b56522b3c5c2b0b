"""Files of models: what can stand in them, and how what is wrong in them is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.model_files import ModelFileError, read_file, read_folder

HERE = Path(__file__).parent


def test_the_order_is_read_with_its_states_transitions_and_comments() -> None:
    (order,) = read_file(HERE / "Order.rst").models
    assert (order.name.text, order.prefix, [str(one.name) for one in order.fields]) == ("Order", "order", ["amount"])
    assert order.fields[0].comment == "The common fields defined here will be available across all states"
    assert [(str(one.name), [*map(str, one.parents)]) for one in order.states] == [
        ("Created", []), ("Paid", []), ("DeliveryBooked", ["Paid"]),
    ]  # fmt: skip
    create, pay, book = order.transitions
    assert (create.sources, [*map(str, create.targets)]) == (None, ["Created"])
    assert ([*map(str, pay.sources or ())], [str(one.name) for one in pay.fields]) == (
        ["Created"],
        ["paymentReference"],
    )
    assert book.comment.startswith("`BookDelivery` is triggered")


MODEL = "model Order {{ field amount: Int state Created {{}} state Paid {{}} {} }}"
CREATE = "transition Create: Created {} "


@pytest.mark.parametrize(
    ("text", "marked", "told"),
    [
        ("modle Order {}", "modle", "Expected `model`.* and there is `modle`.*model Order {"),
        ("model Order", "", "Expected `{`, and the file ends"),
        ("model Order { field amount Int }", "Int", "Expected `:`.*Write|written `field amount: Int`"),
        ("model Order { field amount = Int }", "=", "Expected `:`, and there is `=`"),
        ("model Order { prefix 'order' }", "'", 'in double quotes.*prefix "order"'),
        ("model Order { state Paid { state Sent {} } }", "state", "Expected `field` or `}`.*DeliveryBooked: Paid"),
        ("model Order { transition Pay: A => B {} }", "=", "Expected `->`, `{` or `|`.*Created -> Paid"),
        ("model Order { field amount: Int\n", "", "`}`, and the file ends"),
        (MODEL.format(CREATE + "transition Pay: Craeted -> Paid {}"), "Craeted", "no state Craeted.*mean Created"),
        (MODEL.format(CREATE + "transition Pay: Created -> Gone {}"), "Gone", "no state Gone.*`state Gone {}`"),
        (MODEL.format("state Sent: Payed {}"), "Payed", "no state Payed in model Order.*Did you mean Paid"),
        (MODEL.format("state Paid {}"), "Paid", "a state Paid in line 3 already"),
        (MODEL.format("field amount: Int"), "amount", "a field amount in line 3 already"),
        (MODEL.format("index amuont"), "amuont", "no field amuont in model Order.*mean amount"),
        (MODEL.format("index amount index amount"), "amount", "an index of amount in line 3 already"),
        (MODEL.format('index "amount"'), '"amount"', "Expected a name.*An index is written `index amount`"),
        (MODEL.format("state A { field aB: Int } state B { field ab: Int }"), "ab", "a field aB in line 3, and"),
        (MODEL.format(CREATE + CREATE), "Create", "a transition Create in line 3 already"),
        (MODEL.format("state A: B {} state B: C {} state C: A {}"), "B", "circle"),
        (MODEL.format("state A: A {}"), "A", "circle"),
        (MODEL.format("state A: Paid, Created, Paid {}"), "Paid", "A takes over the fields of Paid already"),
        (MODEL.format("state Sent { field amount: Int }"), "amount", "from every state of Order already"),
        (
            MODEL.format("state A { field x: Int } state B { field x: Int } state C: A, B {}"), "A",
            "C would have the field x from A and from B",
        ),
        (MODEL.format("state A { field x: Int } state B: A { field x: Int }"), "x", "field x from A already"),
        *((MODEL.format(f"field {name}: Int"), name, "reserved") for name in ("id", "state", "of", "note")),
        (
            MODEL.format("state A { field x: Int } state B { field x: Optional[Int] } state C { field x: String }"),
            "String", "The field x is Int in A.*Write `field x: Int`",
        ),
        (MODEL.format("field int: Int"), "int", "means something else in Python"),
        (MODEL.format("field trackingURL: String"), "trackingURL", "Write trackingUrl"),
        (MODEL.format("field tracking_url: String"), "tracking_url", "Write trackingUrl"),
        (MODEL.format("field a: Strng"), "Strng", "There is no type Strng.*Did you mean String"),
        (MODEL.format("field a: string"), "string", "Did you mean String"),
        (MODEL.format("field a: Optional"), "Optional", r"write Optional\[String\]"),
        (MODEL.format("field a: Int[String]"), "Int", "Only Optional takes"),
        (MODEL.format("field a: Optional[Optional[Int]]"), "Optional", "Write Optional once"),
        (MODEL.format("state paid {}"), "paid", "the first a capital.*Write Paid"),
        (MODEL.format("state Order {}"), "Order", "the name of the model"),
        (MODEL.format("state None {}"), "None", "None means something else in Python"),
        (MODEL.format("state True {}"), "True", "True means something else in Python"),
        ("model False {}", "False", "False means something else in Python"),
        (MODEL.format("state Sent: Paid {} state PaidFields {}"), "PaidFields", "generated for the fields of Paid"),
        (MODEL.format("state OrderMachine {}"), "OrderMachine", "generated for the transitions"),
        (MODEL.format("transition FindOne: Created {}"), "FindOne", r"has find_one\(\) already"),
        (MODEL.format("transition Models: Created {}"), "Models", "imports models"),
        (MODEL.format('prefix "Order"'), '"Order"', 'lower case letters.*Write prefix "order"'),
        (MODEL.format('prefix "a" prefix "b"'), '"b"', "has a prefix already"),
        (MODEL.format('prefix "tsn"'), '"tsn"', "Ids of transitions begin with 'tsn_'"),
        (MODEL.format(CREATE), "Paid", "No transition leads to Paid.*transition ToPaid: Created -> Paid"),
        (MODEL.format("transition Pay: Created -> Paid {}"), "Pay", "no object would ever be made.*Create: Created"),
        ("model Order {} model Order {}", "Order", "There is a model Order already"),
        ('model Order {} model Item { prefix "order" }', '"order"', 'Ids of Order begin with .*prefix "item"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_place_with_what_to_write(
    tmp_path: Path, text: str, marked: str, told: str
) -> None:
    path = tmp_path / "Order.rst"
    path.write_text(f"// A file\n\n  {text}")
    with pytest.raises(ModelFileError, match=f"Order.rst, line (3|4), column [0-9]+:\n(.*\n)+.*({told})") as refused:
        read_folder(tmp_path)
    (problem,) = refused.value.problems
    assert problem.source[problem.column - 1 :].startswith(marked)
    assert problem.length == max(1, len(marked))
    source, carets, *_ = str(refused.value).splitlines()[1:]
    assert source[carets.index("^") :].startswith(marked)
    assert carets.count("^") == problem.length


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "A.rst").write_text("model A { field a: Itn\n\tfield id: Int }")
    (tmp_path / "B.rst").write_bytes("\ufeffmodel B { field é: Int }\r\n".encode())
    (tmp_path / "C.rst").write_bytes(b"model C {\n  // \xff }")
    with pytest.raises(ModelFileError) as refused:
        read_folder(tmp_path)
    places = [(Path(one.path).name, one.line, one.column) for one in refused.value.problems]
    assert places == [("A.rst", 1, 20), ("A.rst", 2, 8), ("B.rst", 1, 17), ("C.rst", 2, 6)]
