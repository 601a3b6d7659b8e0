use std::time::Instant;

/// A protocol as a state machine without I/O: inputs in, effects out, time told from outside.
///
/// The driver hands in an input or a timeout and then drains [`poll_effect`](Self::poll_effect) until it
/// returns `None`. Deadlines are pulled with [`poll_timeout`](Self::poll_timeout), never scheduled. A machine
/// reads no clock and no global randomness, and iterates only over ordered maps, so that the same inputs at the
/// same instants always give the same effects.
pub trait Machine {
    /// What the driver tells the machine.
    type Input;
    /// What the machine wants done.
    type Effect;

    /// Takes in one input at the instant `now`. Never blocks; never panics on any input.
    fn handle(&mut self, now: Instant, input: Self::Input);

    /// Tells the machine that `now` has been reached. Called at or after the instant of
    /// [`poll_timeout`](Self::poll_timeout); a call that comes early changes nothing.
    fn handle_timeout(&mut self, now: Instant);

    /// The next thing to do, in order; `None` once there is nothing.
    fn poll_effect(&mut self) -> Option<Self::Effect>;

    /// When [`handle_timeout`](Self::handle_timeout) is next wanted; `None` if never.
    fn poll_timeout(&self) -> Option<Instant>;
}
