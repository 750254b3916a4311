//! Those who order, click again, click elsewhere, and change their mind: duplicates over all replicas.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{dice::Dice, replica::Replicas};

/// Longer than any replica lets a client wait.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Message {
    first: String,
    fields: Vec<(String, String)>,
    pub(super) body: String,
}

impl Message {
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(super) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

/// One request as its client saw it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) replica: usize,
    pub(super) request: String,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// None: the replica was gone, or went away.
    pub(super) answer: Option<Message>,
}

/// First line, fields and body.
pub(super) async fn read_message(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<Message> {
    let mut first = String::new();
    if reader.read_line(&mut first).await.ok()? == 0 {
        return None;
    }
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut message = Message { first, fields, body: String::new() };
    let mut body = vec![0; message.field("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).await.ok()?;
    message.body = String::from_utf8(body).ok()?;
    Some(message)
}

pub(super) async fn exchange(address: SocketAddr, request: &str) -> Option<Message> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    read_message(&mut BufReader::new(stream)).await
}

/// One order, with this body.
pub(super) async fn post(replicas: &Replicas, replica: usize, request: String) -> Asked {
    let began = Instant::now();
    let answer = match replicas.address(replica) {
        None => None,
        Some(address) => {
            let text = format!(
                "POST /checkout HTTP/1.1\r\nHost: shop\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                 Content-Length: {}\r\n\r\n{request}",
                request.len()
            );
            timeout(PATIENCE, exchange(address, &text)).await.ok().flatten()
        }
    };
    Asked { replica, request, began, ended: Instant::now(), answer }
}

/// Orders until the time is over; returns once everybody was answered or has given up.
pub(super) async fn storm(replicas: &Arc<Replicas>, seed: u64, length: Duration) -> Vec<Asked> {
    let (mut dice, began, asked) = (Dice::new(seed, 200), Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let mut all = JoinSet::new();
    let mut order = 0_u64;
    while began.elapsed() < length {
        order += 1;
        for _ in 0..3 + dice.below(6) {
            // One in four has another body: another payment token for the same cart.
            let token = if dice.below(4) == 0 { 1 + dice.below(2) } else { 0 };
            let request = format!("order={order}&token={token}");
            let replica = usize::try_from(dice.below(3)).expect("it is small");
            // Most come together; some come when the lease, or the hold, of a leader that died may have run out.
            let pause = match dice.below(10) {
                0..6 => dice.millis(0..50),
                6..8 => dice.millis(50..1500),
                _ => dice.millis(1500..9000),
            };
            let (replicas, asked) = (Arc::clone(replicas), Arc::clone(&asked));
            all.spawn(async move {
                sleep(pause).await;
                let ask = post(&replicas, replica, request).await;
                asked.lock().expect("nobody panics with it").push(ask);
            });
        }
        sleep(dice.millis(20..90)).await;
        // Whoever is done is not kept, or a long run would remember them all.
        while all.try_join_next().is_some() {}
    }
    while let Some(joined) = all.join_next().await {
        joined.expect("a client does not panic");
    }
    let mut asked = asked.lock().expect("nobody panics with it");
    std::mem::take(&mut *asked)
}
