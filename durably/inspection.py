"""What `Runtime.invocations()`, `.objects()`, `.journal()` and `.why()` answer with: frozen values.

- Lists: `ListedInvocation` is a handle with an `InvocationDescription`; `ObjectDescription` says how busy an object is.
- Journals: an `InvocationJournal` has `JournalStep`s, with `JournalCommand`s and `JournalAnswer`s.
- Waiting: a `WaitingInvocation` has `Wait`s: `DelayWait`, `MailboxWait`, `TurnWait`, `BackoffWait`, `PauseWait`,
  `TimerWait`, `ActionWait`, `CallWait`, `AttachWait`, `PromiseWait`, `AwakeableWait`, `SignalWait`, `AnswerWait`,
  `LimitWait`, `UnreadableWait`. `why` reads it from a store that is only read; `data_of` makes plain values for JSON
  of all of them.
"""

from durably.runtime.inspection.journals import InvocationJournal as InvocationJournal
from durably.runtime.inspection.journals import JournalAnswer as JournalAnswer
from durably.runtime.inspection.journals import JournalCommand as JournalCommand
from durably.runtime.inspection.journals import JournalStep as JournalStep
from durably.runtime.inspection.listing import InvocationDescription as InvocationDescription
from durably.runtime.inspection.listing import ListedInvocation as ListedInvocation
from durably.runtime.inspection.listing import ObjectDescription as ObjectDescription
from durably.runtime.inspection.stored_facts import why as why
from durably.runtime.inspection.waits import ActionWait as ActionWait
from durably.runtime.inspection.waits import AnswerWait as AnswerWait
from durably.runtime.inspection.waits import AttachWait as AttachWait
from durably.runtime.inspection.waits import AwakeableWait as AwakeableWait
from durably.runtime.inspection.waits import BackoffWait as BackoffWait
from durably.runtime.inspection.waits import CallWait as CallWait
from durably.runtime.inspection.waits import DelayWait as DelayWait
from durably.runtime.inspection.waits import LimitWait as LimitWait
from durably.runtime.inspection.waits import MailboxWait as MailboxWait
from durably.runtime.inspection.waits import PauseWait as PauseWait
from durably.runtime.inspection.waits import PromiseWait as PromiseWait
from durably.runtime.inspection.waits import SignalWait as SignalWait
from durably.runtime.inspection.waits import TimerWait as TimerWait
from durably.runtime.inspection.waits import TurnWait as TurnWait
from durably.runtime.inspection.waits import UnreadableWait as UnreadableWait
from durably.runtime.inspection.waits import Wait as Wait
from durably.runtime.inspection.waits import WaitingInvocation as WaitingInvocation
from durably.runtime.inspection.waits import data_of as data_of
