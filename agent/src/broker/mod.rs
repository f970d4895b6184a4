//! Least privilege: the agent is two processes. The broker loads and attaches, reads what only the privileged may, and
//! answers; what parses hostile bytes holds nothing and asks.
//!
//! `serve` is the broker, with `answers` and `look` behind it; `link` is the other process' end; `protocol` is all that they
//! can say to each other, over the socket in `channel`; `names` is where users' names come from, `digests` where executables are
//! read, `containers` what runtimes keep on disk. The broker believes nothing that it is asked: a request names a
//! process or a user by number, never a place, and what is attached where is found out by the broker itself.

mod answers;
pub mod channel;
mod containers;
mod digests;
mod hosts;
pub mod link;
mod look;
mod names;
pub mod protocol;
pub mod serve;

pub use channel::Channel;
pub use link::{Broker, NoAnswer};

/// The real answers in a thread of this process, about processes, users and this host. There is nothing to tap in a test.
#[cfg(test)]
pub fn in_a_thread() -> Broker {
    use protocol::{ANSWER_BYTES, Answer, QUESTION_BYTES, Question, Reply};
    let (mut channel, theirs) = Channel::pair(QUESTION_BYTES).expect("a pair of sockets");
    std::thread::spawn(move || {
        let mut names = names::Names::start().expect("a thread");
        loop {
            match channel.receive::<Question>().expect("a question") {
                channel::Received::Message(question, _) => {
                    let mut parts = match question.request {
                        protocol::Request::User { uid } => {
                            names.of(uid).map(Answer::Name).into_iter().collect()
                        }
                        ref other => answers::seen(other).unwrap_or_default(),
                    };
                    let last = parts.pop().unwrap_or(Answer::Nothing);
                    let parts = parts.into_iter().map(|answer| (answer, false));
                    for (answer, last) in parts.chain([(last, true)]) {
                        let number = question.number;
                        let reply = Reply { number, last, answer };
                        while channel.send(&reply, ANSWER_BYTES, &[]).is_err() {
                            std::thread::yield_now();
                        }
                    }
                }
                channel::Received::Nothing => std::thread::sleep(std::time::Duration::from_micros(200)),
                channel::Received::End => return,
            }
        }
    });
    Broker::new(Channel::new(theirs, ANSWER_BYTES))
}
