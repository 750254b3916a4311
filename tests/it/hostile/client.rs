//! A client that sends exactly the bytes it is given, split where it is told, and reads what comes back.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than anything here takes; only a test that fails ever waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

pub(super) struct Raw {
    stream: TcpStream,
    bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(super) fn verdict(&self) -> &str {
        self.field("oncegate-verdict")
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Raw {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway accepts");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket option");
        Self { stream, bytes: Vec::new() }
    }

    /// Sends in as many writes as there are cuts and one more. A gateway that has had enough may close in between.
    pub(super) fn send_cut(&mut self, bytes: &[u8], cuts: &[usize]) {
        let mut from = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            if self.stream.write_all(&bytes[from..cut]).is_err() {
                return;
            }
            from = cut;
            std::thread::yield_now();
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.send_cut(bytes, &[]);
    }

    /// Says that no more comes.
    pub(super) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next final answer. `None` where the connection ended instead.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    pub(super) fn answer_to(&mut self, method: &str) -> Option<Answer> {
        loop {
            let answer = self.any_answer_to(method)?;
            if answer.status >= 200 {
                return Some(answer);
            }
        }
    }

    /// The next answer, of whatever kind.
    pub(super) fn any_answer_to(&mut self, method: &str) -> Option<Answer> {
        loop {
            if let Some((answer, length)) = parse(&self.bytes, method) {
                self.bytes.drain(..length);
                return Some(answer);
            }
            if !self.more() {
                assert!(self.bytes.is_empty(), "an answer was cut: {}", String::from_utf8_lossy(&self.bytes));
                return None;
            }
        }
    }

    /// All final answers until the gateway ends the connection, which it has to.
    pub(super) fn to_end(&mut self) -> Vec<Answer> {
        std::iter::from_fn(|| self.answer()).collect()
    }

    /// The statuses of what comes until the connection ends, whole answers or not.
    pub(super) fn ending(&mut self) -> Vec<u16> {
        while self.more() {}
        let mut statuses = Vec::new();
        while let Some((answer, length)) = parse(&self.bytes, "GET") {
            self.bytes.drain(..length);
            statuses.push(answer.status);
        }
        statuses
    }

    /// Waits a little for anything to come; whether something did.
    pub(super) fn glance(&mut self, patience: Duration) -> bool {
        let _ = self.stream.set_read_timeout(Some(patience));
        let mut buffer = [0; 4096];
        let came = match self.stream.read(&mut buffer) {
            Ok(step) => {
                self.bytes.extend_from_slice(&buffer[..step]);
                true
            }
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        let _ = self.stream.set_read_timeout(Some(PATIENCE));
        came
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(step) => {
                self.bytes.extend_from_slice(&buffer[..step]);
                step > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!(
                    "the gateway neither answered nor closed; so far: {}",
                    String::from_utf8_lossy(&self.bytes)
                )
            }
            Err(_) => false,
        }
    }
}

fn parse(bytes: &[u8], method: &str) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status_line = lines.next()?;
    let status: u16 = status_line.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let answer = Answer { status, fields, body: Vec::new() };
    assert!(answer.field("transfer-encoding").is_empty(), "no answer here is chunked: {head}");
    let length: usize = match status {
        100..200 | 204 | 304 => 0,
        _ if method == "HEAD" => 0,
        _ => answer.field("content-length").parse().unwrap_or(0),
    };
    let body = bytes.get(end..end + length)?.to_vec();
    Some((Answer { body, ..answer }, end + length))
}
