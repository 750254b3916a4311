//! A shop that counts: what it was sent, by which replica, and when each of its runs began and ended. A run goes on
//! when whoever sent it is gone, as that of a real shop does.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    time::sleep,
};

use super::{clients::read_message, dice::Dice};

/// Longer than any replica is away.
const LONG_AGO: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Done,
    Failed,
    /// It closed the connection instead of answering.
    Nothing,
}

/// One request at the shop.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) replica: usize,
    /// Which life of the replica.
    pub(super) life: usize,
    /// The whole body: which request it is.
    pub(super) request: String,
    pub(super) fence: u64,
    /// When the store granted it: a fence is the store's clock at that moment, in microseconds.
    pub(super) claimed: Instant,
    pub(super) began: Instant,
    /// None: it works still.
    pub(super) ended: Option<(Instant, Said)>,
}

impl Run {
    pub(super) fn order(&self) -> &str {
        order_of(&self.request)
    }
}

/// The order that a body is about.
pub(super) fn order_of(request: &str) -> &str {
    request.split('&').next().unwrap_or(request)
}

/// How it works.
pub(super) enum Manner {
    /// For 50 to 300 ms, and it fails one time in ten, and one in twenty it says nothing.
    Moody(Dice),
    /// Always as long, and with an answer of so many bytes more.
    Steady { work: Duration, bytes: usize },
    /// Until this moment, whenever it began, and with so many bytes more.
    Until { moment: Instant, bytes: usize },
}

impl Manner {
    fn next(&mut self) -> (Duration, Said, usize) {
        match self {
            Self::Moody(dice) => {
                let said = match dice.below(100) {
                    0..85 => Said::Done,
                    85..95 => Said::Failed,
                    _ => Said::Nothing,
                };
                (dice.millis(50..300), said, 0)
            }
            Self::Steady { work, bytes } => (*work, Said::Done, *bytes),
            Self::Until { moment, bytes } => {
                (moment.saturating_duration_since(Instant::now()), Said::Done, *bytes)
            }
        }
    }
}

pub(super) struct Shop {
    /// One for each replica, so that the shop knows who sent what.
    pub(super) addresses: Vec<SocketAddr>,
    log: Arc<Mutex<Vec<Run>>>,
    desk: Arc<Desk>,
}

/// What it is to make of its requests.
struct Desk {
    log: Arc<Mutex<Vec<Run>>>,
    manner: Mutex<Manner>,
    lives: Arc<Mutex<Vec<usize>>>,
}

impl Shop {
    pub(super) async fn open(replicas: usize, manner: Manner, lives: Arc<Mutex<Vec<usize>>>) -> Self {
        let log = Arc::default();
        let desk = Arc::new(Desk { log: Arc::clone(&log), manner: Mutex::new(manner), lives });
        let mut addresses = Vec::new();
        for replica in 0..replicas {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
            addresses.push(listener.local_addr().expect("it is bound"));
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, replica, Arc::clone(&desk)));
                }
            });
        }
        Self { addresses, log, desk }
    }

    pub(super) fn runs(&self) -> Vec<Run> {
        self.lock().clone()
    }

    pub(super) fn works(&self, manner: Manner) {
        *self.desk.manner.lock().expect("nobody panics with it") = manner;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().iter().all(|run| run.ended.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Run>> {
        self.log.lock().expect("nobody panics with it")
    }
}

async fn serve(stream: TcpStream, replica: usize, desk: Arc<Desk>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(message) = read_message(&mut reader).await {
        let fence = message.field("oncegate-fence").parse().unwrap_or(0);
        let life = desk.lives.lock().expect("nobody panics with it")[replica];
        let (began, claimed) = (Instant::now(), granted(fence));
        let run = Run { replica, life, request: message.body, fence, claimed, began, ended: None };
        let (number, (work, said, bytes)) = {
            let mut log = desk.log.lock().expect("nobody panics with it");
            log.push(run.clone());
            (log.len() - 1, desk.manner.lock().expect("nobody panics with it").next())
        };
        sleep(work).await;
        desk.log.lock().expect("nobody panics with it")[number].ended = Some((Instant::now(), said));
        let text = format!("{number} {}{}", run.request, "-".repeat(bytes));
        if said == Said::Nothing || !answer(&mut writer, &text, said).await {
            return;
        }
    }
}

/// All clocks of a run are this machine's. One that was not guarded was never granted.
fn granted(fence: u64) -> Instant {
    let (now, since) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let age = since.checked_sub(Duration::from_micros(fence)).filter(|age| *age < LONG_AGO);
    now.checked_sub(age.unwrap_or_default()).unwrap_or(now)
}

/// Whether the other side still took it.
async fn answer(to: &mut OwnedWriteHalf, text: &str, said: Said) -> bool {
    let status = if said == Said::Done { "200 OK" } else { "500 Internal Server Error" };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    to.write_all(answer.as_bytes()).await.is_ok()
}
