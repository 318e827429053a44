//! Long values under way: the worker makes room for them in the memory of their shard, receives them there, and then has
//! them stored. [`super::uploads`] decides which values may come in and which wait.

use super::batch::{Batch, Origin, Part, Reservation, Room, Task, reply_bytes_max};
use super::sampler::kind_of_reply;
use super::session::{Receiving, Session, State};
use super::shards::Shards;
use super::uploads::Admission;
use crate::command::observed::Observer;
use crate::command::{self, Reply, Request};
use crate::measure::latency::Kind;
use crate::protocol::{Operation, Verb};
use crate::store::gather::Gathering;

/// A value is slow if fewer bytes than this come in a second while others wait.
const SLOW_BYTES: usize = 16 << 10;
/// After so many slow seconds a value makes way for those that wait.
const SLOW_SECONDS_YIELD: u32 = 2;
/// After so many slow seconds the worker closes the connection.
const SLOW_SECONDS_MAX: u32 = 5;

impl Shards<'_> {
    /// A command comes whose value is too long for the buffer. The value takes no memory before its first byte has come.
    pub(super) fn begin_value(&self, session: &mut Session, operation: &Operation, input: &[u8]) {
        let mut keep = Batch::new(0, 0);
        let kept = keep.adopt(operation, input);
        session.state = State::Receiving(Box::new(Receiving {
            operation: kept,
            bytes: keep.bytes,
            shard: self.shard_of(operation.hash),
            gathering: None,
            cursor: None,
            received: 0,
            counted: 0,
            yielded: false,
            received_before: 0,
            slow_seconds: 0,
        }));
    }

    /// Makes room for more of a long value: [`Session::wants_room`] has said that this is needed, and bytes have come.
    /// Afterwards there is room, or the connection waits for it, or `output` says that there is no memory.
    pub fn make_room(&mut self, session: &mut Session, output: &mut Reply) {
        self.widen(session, output);
        self.give_back();
    }

    fn widen(&mut self, session: &mut Session, output: &mut Reply) {
        let State::Receiving(mut value) = std::mem::replace(&mut session.state, State::Parsing) else {
            unreachable!("only called while receiving");
        };
        if value.counted < value.len() {
            let held = value.counted;
            let admission = Admission::new(session.ticket(self.worker), value.shard, value.len(), held);
            if !self.exchange.uploads(value.shard).enter(admission) {
                session.state = State::Queued(value);
                return;
            }
            value.counted = value.len();
            value.yielded = false;
        }
        let (shard, wanted, so_far) = (value.shard, value.wanted(), value.gathering.take());
        let mut room = Room::Wanted(so_far);
        if self.lease(shard).is_some()
            && let Some(lease) = &mut self.links[shard].lease
        {
            let request = Request::new(&value.operation, &value.bytes, self.clock);
            let gathered = match &mut self.log {
                None => command::reserve(lease, &request, wanted, so_far),
                Some(log) => Observer { log, fd: session.fd }.reserve(lease, &request, wanted, so_far),
            };
            room = gathered.into();
        }
        match room {
            Room::Ready(gathering) => {
                value.set_room(gathering, &self.items);
                session.state = State::Receiving(value);
            }
            Room::Wanted(so_far) => {
                let slot = session.pending.gap(reply_bytes_max(&value.operation));
                self.ask_for_room(session, slot, &value, so_far);
                session.state = State::Reserving(value);
            }
            Room::Refused => {
                command::refuse(&value.operation, session.pending.sink(output));
                self.refuse(session, &value);
            }
        }
    }

    /// There is no room for the rest of a value: the parser throws it away.
    fn refuse(&mut self, session: &mut Session, value: &Receiving) {
        session.parser.swallow_value((value.len() - value.received) as u32);
        self.discount(value);
    }

    /// A value is not under way any more.
    fn discount(&self, value: &Receiving) {
        let uploads = self.exchange.uploads(value.shard);
        if value.counted > 0 {
            let gone = if value.yielded { uploads.leave_yielded(value.counted) } else { uploads.leave(value.counted) };
            self.exchange.admit(gone);
        }
    }

    /// A long value that waited may come in. Returns whether its connection still waits for that: the connection may have
    /// closed, and another may have its token.
    pub fn admitted(&mut self, session: Option<&mut Session>, admission: &Admission) -> bool {
        if let Some(session) = session.filter(|session| session.generation == admission.ticket.generation)
            && let State::Queued(_) = session.state
            && let State::Queued(mut value) = std::mem::replace(&mut session.state, State::Parsing)
        {
            value.counted = admission.bytes;
            value.yielded = false;
            session.state = State::Receiving(value);
            return true;
        }
        self.exchange.admit(self.exchange.uploads(admission.shard).leave(admission.bytes));
        false
    }

    /// A second has passed for a connection: a slow value makes way for those that wait. Returns whether the value has been
    /// slow for so long that the worker must close the connection.
    pub fn is_too_slow(&mut self, session: &mut Session) -> bool {
        let State::Receiving(value) = &mut session.state else { return false };
        let came = value.received - value.received_before;
        value.received_before = value.received;
        if value.counted == 0 || came >= SLOW_BYTES || self.exchange.uploads(value.shard).waiting() == 0 {
            value.slow_seconds = 0;
            return false;
        }
        value.slow_seconds += 1;
        if value.slow_seconds == SLOW_SECONDS_YIELD && !value.yielded {
            let held = value.gathering.as_ref().map_or(0, Gathering::room);
            self.exchange.admit(self.exchange.uploads(value.shard).yield_to_others(value.counted, held));
            value.counted = held;
            value.yielded = true;
        }
        value.slow_seconds >= SLOW_SECONDS_MAX
    }

    /// Asks the shard for room for a long value, or for more of it, with the next batch.
    fn ask_for_room(&mut self, session: &Session, slot: usize, value: &Receiving, so_far: Option<Gathering>) {
        let origin = Origin { token: session.token, generation: session.generation, slot, fd: session.fd };
        let operation = self.open(value.shard).adopt(&value.operation, &value.bytes);
        let reservation = Reservation { operation, wanted: value.wanted(), room: Room::Wanted(so_far) };
        self.push(value.shard, Task::Reserve(Box::new(reservation)), Some(origin), reply_bytes_max(&operation));
    }

    /// Hands the reply to a task to its connection. The reply fills the gap number `slot`.
    pub fn deliver(&mut self, session: &mut Session, task: &Task, slot: usize, reply: Part<'_>) {
        let Task::Reserve(reservation) = task else {
            if let (Task::Execute(operation) | Task::Commit(operation, _), Some(late)) = (task, &mut session.late) {
                late.tally.add(kind_of_reply(operation.verb, reply), 1);
            }
            session.pending.fill(slot, reply);
            return;
        };
        let State::Reserving(mut value) = std::mem::replace(&mut session.state, State::Parsing) else {
            unreachable!("the reply to a reservation comes to the connection that asked for it");
        };
        match reservation.room {
            Room::Wanted(so_far) => {
                self.ask_for_room(session, slot, &value, so_far);
                self.waits_for_room = true;
                session.state = State::Reserving(value);
            }
            Room::Ready(gathering) => {
                session.pending.fill(slot, Part { to: reply.from, ..reply });
                value.set_room(gathering, &self.items);
                session.state = State::Receiving(value);
            }
            Room::Refused => {
                // The reply is the error, or nothing if the client wants no reply.
                session.pending.fill(slot, reply);
                self.refuse(session, &value);
            }
        }
    }

    /// The reply to a task comes for a connection that has closed: gives up the memory that the reply or the task holds.
    pub fn discard(&mut self, shard: usize, task: &Task, reply: Part<'_>) {
        if let Task::Reserve(reservation) = task
            && let Some(id) = reservation.room.item()
        {
            self.run_or_defer(shard, Task::Abandon(id));
        }
        let Part { reply, from, to } = reply;
        for &pinned in reply.pinned.iter().filter(|pinned| pinned.at > from && pinned.at <= to) {
            self.unpin(pinned);
        }
    }

    /// A connection closes: gives up the memory that it holds.
    pub fn end(&mut self, mut session: Session) {
        for reply in session.pending.take_all() {
            reply.pinned.into_iter().for_each(|pinned| self.unpin(pinned));
        }
        let ticket = session.ticket(self.worker);
        match session.state {
            State::Receiving(value) => {
                if let Some(id) = value.gathering.as_ref().and_then(Gathering::item) {
                    self.run_or_defer(value.shard, Task::Abandon(id));
                }
                self.discount(&value);
            }
            State::Queued(value) => {
                if let Some(id) = value.gathering.as_ref().and_then(Gathering::item) {
                    self.run_or_defer(value.shard, Task::Abandon(id));
                }
                // If the value has been admitted meanwhile, `admitted` undoes that when the mail comes.
                if let Some(admitted) = self.exchange.uploads(value.shard).withdraw(ticket) {
                    self.exchange.admit(admitted);
                }
            }
            // The room comes back with the task: see [`Shards::discard`].
            State::Reserving(value) => self.discount(&value),
            State::Parsing | State::Asking | State::Dumping | State::Watching(_) => {}
        }
    }

    /// Takes the bytes of a long value from the input, and has the value stored when it is complete. Returns false when more
    /// input is needed, or the connection waits.
    pub(super) fn receive(
        &mut self,
        session: &mut Session,
        input: &mut [u8],
        at: &mut usize,
        output: &mut Reply,
    ) -> bool {
        let terminator_len = session.parser.terminator_len();
        loop {
            let State::Receiving(value) = &mut session.state else { return !session.is_waiting() };
            let missing = value.len() - value.received;
            if missing == 0 {
                break;
            }
            if *at == input.len() {
                return false;
            }
            match value.cursor {
                Some(cursor) if cursor.left() > 0 => {
                    let count = cursor.left().min(input.len() - *at);
                    value.cursor = Some(self.items.fill(cursor, &input[*at..*at + count]));
                    value.received += count;
                    *at += count;
                }
                _ => self.widen(session, output),
            }
        }
        if input.len() - *at < terminator_len {
            return false;
        }
        let terminated = b"\r\n".starts_with(&input[*at..*at + terminator_len]);
        *at += terminator_len;
        self.finish_value(session, terminated, output);
        true
    }

    /// Has a long value stored that is complete. If nothing `terminated` it as it should, gives it up.
    fn finish_value(&mut self, session: &mut Session, terminated: bool, output: &mut Reply) {
        let State::Receiving(value) = std::mem::replace(&mut session.state, State::Parsing) else {
            unreachable!("it was receiving a moment ago");
        };
        self.discount(&value);
        session.expects_value = true;
        let Receiving { operation, bytes, shard, gathering, .. } = *value;
        let id = gathering.as_ref().and_then(Gathering::item).expect("there was room for the value");
        if !terminated {
            session.parser.lose_frame();
            self.run_or_defer(shard, Task::Abandon(id));
            if !operation.quiet || operation.verb == Verb::MetaSet {
                session.pending.sink(output).out.put(b"CLIENT_ERROR bad data chunk\r\n");
            }
            return;
        }
        let request = Request::new(&operation, &bytes, self.clock);
        self.long_key.clear();
        self.long_key.extend_from_slice(request.key);
        self.lease(shard);
        if self.links[shard].lease.is_some() {
            self.tally.add(Kind::Set, 1);
        }
        match (&mut self.links[shard].lease, &mut self.log) {
            (Some(lease), None) => command::commit(lease, &request, id, session.pending.sink(output)),
            (Some(lease), Some(log)) => {
                Observer { log, fd: session.fd }.commit(lease, &request, id, session.pending.sink(output));
            }
            (None, _) => {
                let expected = reply_bytes_max(&operation);
                let origin = session.origin(expected);
                let operation = self.open(shard).adopt(&operation, &bytes);
                self.push(shard, Task::Commit(operation, id), Some(origin), expected);
            }
        }
    }
}
