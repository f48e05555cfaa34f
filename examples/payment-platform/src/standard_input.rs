//! Standard input as a channel of lines.
//!
//! A thread of its own reads, because a read that waits on a terminal cannot be cancelled: inside the runtime it
//! would keep the process alive until a user pressed Enter.

use std::io::BufRead;

use tokio::sync::mpsc;

/// One message per line; the channel closes at the end of the input.
pub(crate) fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
