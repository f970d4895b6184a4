//! What delivery asks of the thread that seals.

use anyhow::Context as _;
use evidence::Hash;
use proto::v1;
use tokio::sync::{mpsc, oneshot};

use crate::trust::Greeting;

/// An order.
#[derive(Debug)]
pub(super) enum Order {
    /// This collector holds the chain up to there, and is used from here on; the answer is the sequence that it needs next.
    Align(String, v1::Resume, oneshot::Sender<anyhow::Result<u64>>),
    /// A batch is to be sent; answered as soon as it is sealed.
    Read(u64, oneshot::Sender<anyhow::Result<v1::SignedBatch>>),
    /// The collector in use made a batch durable, whose header hashes to this.
    Acknowledged(u64, Hash),
    /// By what a collector is greeted, and up to which batch others have everything.
    Greeting(oneshot::Sender<(Greeting, u64)>),
    /// The collector wishes for another key than this.
    ReplaceKey(Vec<u8>),
    /// Nothing more comes; the answer is whether everything is acknowledged or on disk.
    Stop(oneshot::Sender<bool>),
}

/// The thread that seals, as others see it.
#[derive(Clone, Debug)]
pub struct Chained(pub(super) mpsc::UnboundedSender<Order>);

impl Chained {
    /// Brings the chain behind what this collector holds, which is used from here on; returns the sequence that it needs next.
    pub(super) async fn align(&self, collector: &str, resume: v1::Resume) -> anyhow::Result<u64> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Align(collector.to_owned(), resume, answer));
        answered.await.context(ENDED)?
    }

    /// By what a collector is greeted, and up to which batch others have everything.
    pub(super) async fn greeting(&self) -> anyhow::Result<(Greeting, u64)> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Greeting(answer));
        answered.await.context(ENDED)
    }

    /// The collector wishes for another key than this.
    pub(super) fn replace_key(&self, public_key: Vec<u8>) {
        self.order(Order::ReplaceKey(public_key));
    }

    /// Asks for a batch, which may have to be sealed yet.
    pub(super) fn read(&self, sequence: u64) -> oneshot::Receiver<anyhow::Result<v1::SignedBatch>> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Read(sequence, answer));
        answered
    }

    /// A batch is durable at a collector.
    pub(super) fn acknowledged(&self, sequence: u64, hash: Hash) {
        self.order(Order::Acknowledged(sequence, hash));
    }

    /// Seals what there is, and ends; whether nothing was left that is neither acknowledged nor on disk.
    pub async fn stop(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Stop(answer));
        answered.await.unwrap_or(false)
    }

    fn order(&self, order: Order) {
        // Whoever waits for the answer learns of it if the thread has ended.
        let _ = self.0.send(order);
    }
}

const ENDED: &str = "the thread that seals has ended";
