//! A large host, made up: what runs on it, as the kernel would tell of it.
//!
//! Four of five processes are in pods: a first process, workers that it forked, and programs that it started. The others are
//! in units of the host. Every program has arguments of its own; executables, users and paths of cgroups repeat as they do.

use std::time::Duration;

use anyhow::Context as _;
use attribution::Host;
use ebpf_abi::{ARGS_MAX, ExecFact, FactKind, PATH_MAX, TaskFact, TaskPlace};
use pgwitness_agent::{
    broker::{
        Broker, Channel,
        channel::Received,
        protocol::{ANSWER_BYTES, Answer, Container, QUESTION_BYTES, Question, Reply, Request},
    },
    facts::{cgroups::Cgroups, processes::Processes},
};

/// What an agent knows of the host.
pub(super) struct Known {
    broker: Broker,
    pub(super) processes: Processes,
    pub(super) cgroups: Cgroups,
}

/// A process, as its connections name it.
#[derive(Clone, Copy)]
pub(super) struct Client {
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) cgroup_id: u64,
    pub(super) uid: u32,
    home: Home,
}

/// What a process belongs to.
#[derive(Clone, Copy)]
enum Home {
    Pod(usize),
    Unit(usize),
}

/// Processes of a pod and of a unit: one that was started, and those that it made.
const IN_A_POD: usize = 8;
const IN_A_UNIT: usize = 20;

/// The first pid of ours: above all that a real host has, so that none is taken for one that runs here.
const FIRST_PID: u32 = 10_000_000;

/// Inode number of every executable.
const INODE: u64 = 4711;

impl Known {
    pub(super) fn new() -> anyhow::Result<Self> {
        let broker = answers().context("cannot start what answers")?;
        Ok(Self {
            processes: Processes::new(broker.clone(), Vec::new()),
            cgroups: Cgroups::read(),
            broker,
        })
    }

    pub(super) fn broker(&self) -> Broker {
        self.broker.clone()
    }

    /// A few processes that are forgotten again.
    pub(super) fn warm_up(&mut self) {
        let mut started = Started {
            known: self,
            clients: Vec::new(),
            wanted: 200,
        };
        started.roots();
        started.home(Home::Unit(0));
        started.home(Home::Pod(0));
        let clients = std::mem::take(&mut started.clients);
        for client in clients {
            let process = self.processes.find(client.pid, client.start);
            process.map(|process| self.processes.completed(process));
            let end = TaskFact {
                tgid: client.pid,
                start: client.start,
                at: 1_000,
                ..TaskFact::default()
            };
            self.processes.exited(&end);
        }
        let last = TaskFact {
            at: u64::MAX / 2,
            ..TaskFact::default()
        };
        self.processes.exited(&last);
    }

    /// Starts so many processes, in so many pods and on the host itself, each known in full.
    pub(super) fn fill(&mut self, processes: usize, pods: usize) -> Vec<Client> {
        let mut started = Started {
            clients: Vec::with_capacity(processes),
            known: self,
            wanted: processes,
        };
        started.roots();
        for pod in 0..pods {
            started.home(Home::Pod(pod));
        }
        let mut unit = 0;
        while started.clients.len() < processes {
            started.home(Home::Unit(unit));
            unit += 1;
        }
        let clients = started.clients;
        for client in &clients {
            let process = self.processes.find(client.pid, client.start);
            process.map(|process| self.processes.completed(process));
        }
        clients
    }
}

/// Processes being started.
struct Started<'a> {
    known: &'a mut Known,
    clients: Vec<Client>,
    wanted: usize,
}

impl Started<'_> {
    /// What all others descend from: the host's first process, and one that starts containers.
    fn roots(&mut self) {
        self.known.cgroups.made(1, "/init.scope".to_owned());
        for (number, parent) in [(1, 1), (2, 1)] {
            let task = TaskFact {
                kind: FactKind::Fork as u32,
                tgid: FIRST_PID - number,
                start: u64::from(number),
                at: 3,
                parent: FIRST_PID - parent,
                parent_start: u64::from(parent),
                login_uid: u32::MAX,
                audit_session: u32::MAX,
                cgroup_id: 1,
                ..TaskFact::default()
            };
            self.known.processes.forked(&task, &mut self.known.cgroups);
            self.known.processes.executed(
                &program(task, 0, executable(0).into_bytes()),
                &mut self.known.cgroups,
            );
        }
    }

    fn home(&mut self, home: Home) {
        let (members, cgroup_id) = match home {
            Home::Pod(pod) => (IN_A_POD, 1_000_000 + pod as u64),
            Home::Unit(unit) => (IN_A_UNIT, 2_000_000 + unit as u64),
        };
        self.known.cgroups.made(cgroup_id, cgroup(home));
        let parent = match home {
            Home::Pod(_) => (FIRST_PID - 2, 2),
            Home::Unit(_) => (FIRST_PID - 1, 1),
        };
        let first = self.started(home, cgroup_id, parent, true);
        for member in 1..members {
            // Half of them workers: forked, and nothing else.
            self.started(home, cgroup_id, first, member % 2 == 0);
        }
    }

    fn started(
        &mut self,
        home: Home,
        cgroup_id: u64,
        parent: (u32, u64),
        runs_a_program: bool,
    ) -> (u32, u64) {
        let n = self.clients.len();
        if n >= self.wanted {
            return parent;
        }
        let pid = FIRST_PID + n as u32;
        let is_first = parent.0 < FIRST_PID;
        let start = 1_000_000_007 + n as u64 * 1_000;
        let number = match home {
            Home::Pod(number) | Home::Unit(number) => number,
        };
        let uid = 1_000 + (number % 50) as u32;
        let mut task = TaskFact {
            kind: FactKind::Fork as u32,
            tgid: pid,
            start,
            at: start,
            parent: parent.0,
            parent_start: parent.1,
            uid,
            login_uid: u32::MAX,
            audit_session: u32::MAX,
            cgroup_id,
            place: TaskPlace {
                session: parent.0,
                pid_ns: 4_026_532_000 + number as u32,
                pid_ns_first: match home {
                    Home::Pod(_) if is_first => pid,
                    Home::Pod(_) => parent.0,
                    Home::Unit(_) => 1,
                },
                net_ns: 4_026_533_000 + number as u32,
                mnt_ns: 4_026_534_000 + number as u32,
                ..TaskPlace::default()
            },
            ..TaskFact::default()
        };
        copy(&mut task.comm, b"app-worker");
        self.known.processes.forked(&task, &mut self.known.cgroups);
        if runs_a_program {
            let exec = program(task, start + 1, arguments(n).into_bytes());
            self.known.processes.executed(&exec, &mut self.known.cgroups);
        }
        self.clients.push(Client {
            pid,
            start,
            cgroup_id,
            uid,
            home,
        });
        (pid, start)
    }
}

fn program(task: TaskFact, at: u64, arguments: Vec<u8>) -> ExecFact {
    let mut exec = ExecFact {
        task: TaskFact {
            kind: FactKind::Exec as u32,
            at,
            ..task
        },
        inode: INODE,
        path_length: 0,
        args_length: arguments.len().min(ARGS_MAX) as u32,
        args_original: arguments.len() as u32,
        is_pooler: 0,
        path: [0; PATH_MAX],
        args: [0; ARGS_MAX],
    };
    copy(&mut exec.args, &arguments);
    exec
}

impl Client {
    /// The name that it has to have.
    pub(super) fn principal(&self, host: &Host) -> String {
        let rest = match self.home {
            Home::Pod(pod) => format!("container/{}", container_name(&container_id(pod))),
            Home::Unit(unit) => format!("unit/application-{unit}.service"),
        };
        format!("spiffe://{}/host/{}/{rest}", host.trust_domain, host.name)
    }
}

fn cgroup(home: Home) -> String {
    match home {
        Home::Pod(pod) => {
            let uid = format!("{pod:08x}_1b2c_4d5e_8f90_a1b2c3d4e5f6");
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{}.scope",
                container_id(pod)
            )
        }
        Home::Unit(unit) => format!("/system.slice/application-{unit}.service"),
    }
}

fn container_id(pod: usize) -> String {
    format!("{pod:064x}")
}

fn container_name(id: &str) -> String {
    format!("checkout-{}", id.get(56..).unwrap_or_default())
}

/// A command line as services have them, each its own.
fn arguments(n: usize) -> String {
    let mut arguments = vec![
        executable(n),
        format!("--config=/etc/application-{}/settings.yaml", n % 700),
        format!("--listen=0.0.0.0:{}", 8_000 + n % 20_000),
        format!("--instance={n}"),
        "--log-level=info".to_owned(),
    ];
    for more in 0..n % 6 {
        arguments.push(format!("--option-{more}=value-{n}"));
    }
    arguments.join("\0") + "\0"
}

/// Some hundreds of programs.
fn executable(n: usize) -> String {
    match n % 4 {
        0 => "/usr/lib/jvm/java-17-openjdk-amd64/bin/java".to_owned(),
        1 => format!("/opt/application-{}/bin/server", n % 300),
        2 => "/usr/bin/python3.11".to_owned(),
        _ => format!("/app/node_modules/.bin/service-{}", n % 50),
    }
}

/// What the broker would say, from a thread.
fn answers() -> std::io::Result<Broker> {
    let (mut channel, theirs) = Channel::pair(QUESTION_BYTES)?;
    std::thread::Builder::new().spawn(move || {
        let mut idle = 0;
        loop {
            match channel.receive::<Question>() {
                Ok(Received::Message(question, _)) => {
                    idle = 0;
                    let reply = Reply {
                        number: question.number,
                        last: true,
                        answer: answer(&question.request),
                    };
                    while channel.send(&reply, ANSWER_BYTES, &[]).is_err() {
                        std::thread::yield_now();
                    }
                }
                Ok(Received::Nothing) if idle < PATIENCE => {
                    idle += 1;
                    std::thread::yield_now();
                }
                // A broker waits and leaves the processor to others: two that share a core slow each other.
                Ok(Received::Nothing) => std::thread::sleep(REST),
                Ok(Received::End) | Err(_) => return,
            }
        }
    })?;
    Ok(Broker::new(Channel::new(theirs, ANSWER_BYTES)))
}

/// How often it looks for a question before it rests, and for how long it does.
const PATIENCE: u32 = 1000;
const REST: Duration = Duration::from_micros(200);

fn answer(request: &Request) -> Answer {
    match request {
        Request::Executable { pid } => Answer::Executable {
            inode: INODE,
            path: executable(number_of(*pid)),
        },
        Request::Program { pid } => Answer::Program {
            start: (1_000_000_007 + number_of(*pid) as u64 * 1_000)
                / pgwitness_agent::facts::processes::TICK_NS,
            sha256: Some([number_of(*pid) as u8; 32]),
            is_server: false,
        },
        Request::Container { id } => Answer::Container(Container {
            name: Some(container_name(id)),
            image: Some("registry.example.org/shop/checkout:1.17.3".to_owned()),
            runtime: "containerd".to_owned(),
            pod: Some("checkout".to_owned()),
            namespace: Some("shop".to_owned()),
        }),
        Request::User { uid } => Answer::Name(Some(format!("service-{uid}"))),
        Request::Addresses => Answer::Addresses(Vec::new()),
        _ => Answer::Nothing,
    }
}

fn number_of(pid: u32) -> usize {
    pid.saturating_sub(FIRST_PID) as usize
}

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
