use super::{super::protocol::ANSWER_BYTES, *};

/// Questions as they come, and answers when they are wanted.
struct Slow(Channel);

impl Slow {
    fn pair() -> (Self, Broker) {
        let (channel, theirs) = Channel::pair(QUESTION_BYTES).expect("a pair");
        (Self(channel), Broker::new(Channel::new(theirs, ANSWER_BYTES)))
    }

    fn asked(&mut self) -> Option<Question> {
        match self.0.receive().expect("a question") {
            Received::Message(question, _) => Some(question),
            _ => None,
        }
    }

    fn says(&self, number: u64, answer: Answer) {
        let reply = Reply {
            number,
            last: true,
            answer,
        };
        self.0.send(&reply, ANSWER_BYTES, &[]).expect("room");
    }
}

fn program(path: &str) -> Answer {
    Answer::Executable {
        inode: 1,
        path: path.to_owned(),
    }
}

#[test]
fn what_comes_late_is_no_answer_to_something_else() {
    let (mut slow, broker) = Slow::pair();
    assert_eq!(broker.executable(1), None);
    assert_eq!(slow.asked().map(|question| question.number), Some(1));
    assert!(broker.is_late());
    let began = Instant::now();
    assert_eq!(broker.executable(2), None, "not while an answer is owed");
    assert!(began.elapsed() < SHORT && slow.asked().is_none());
    slow.says(1, program("/bin/first"));
    slow.says(2, program("/bin/third"));
    assert_eq!(broker.executable(3), Some((1, "/bin/third".to_owned())));
    assert!(!broker.is_late() && broker.lost().is_none());
    drop(slow);
    assert_eq!(broker.executable(4), None);
    assert!(broker.lost().is_some());
}

#[test]
fn what_cannot_be_done_without_is_waited_for() {
    let (mut slow, broker) = Slow::pair();
    assert_eq!(broker.executable(1), None, "given up");
    let asking = std::thread::spawn(move || broker.servers());
    assert!(slow.asked().is_some());
    std::thread::sleep(Duration::from_millis(20));
    slow.says(1, Answer::Nothing);
    let number = loop {
        if let Some(question) = slow.asked() {
            break question.number;
        }
        std::thread::yield_now();
    };
    slow.says(number, Answer::Nothing);
    assert_eq!(asking.join().expect("a thread").expect("an answer"), []);
}

#[test]
fn a_server_can_be_known_late() {
    let (mut slow, broker) = Slow::pair();
    assert_eq!(broker.executable(1), None);
    for pid in [7, 8] {
        let began = Instant::now();
        assert_eq!(broker.server(pid), Err(NoAnswer));
        assert!(began.elapsed() < SHORT, "nothing is waited for");
    }
    let asked: Vec<u64> = std::iter::from_fn(|| slow.asked())
        .map(|question| question.number)
        .collect();
    assert_eq!(asked, [1, 2, 3], "and yet they are asked about");
    assert_eq!(broker.late(), []);
    let server = super::super::protocol::Server {
        pid: 7,
        exe: "/bin/postgres".to_owned(),
        data_directory: None,
        tls: None,
        gss: None,
    };
    slow.says(1, Answer::Nothing);
    slow.says(2, Answer::Server(server.clone()));
    assert_eq!(broker.late(), [(7, Some(server.into()))]);
    slow.says(3, Answer::Nothing);
    assert_eq!(broker.late(), [(8, None)]);
    assert!(!broker.is_late());
}
