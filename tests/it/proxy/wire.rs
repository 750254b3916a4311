//! One end of a raw connection: writes bytes as given, reads HTTP/1.1 messages with nothing hidden.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

/// No read of a test waits longer: a test that hangs says where.
const READ_MAX: Duration = Duration::from_secs(15);

pub(super) struct Wire<S = TcpStream> {
    pub(super) stream: S,
    /// Read and not yet used.
    ahead: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    Empty,
    Length,
    Chunked,
    UntilClose,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) start: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) framing: Framing,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
}

/// How the other side ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    Closed,
    Reset,
}

impl Message {
    pub(super) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an answer has a status")
    }

    /// All lines of a name, in their order.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn length(&self) -> Option<usize> {
        self.get("content-length").map(|length| length.parse().expect("a length is a number"))
    }

    fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }
}

impl Wire {
    pub(super) fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("somebody listens"))
    }

    pub(super) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).map(Self::of)
    }

    pub(super) fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(READ_MAX)).expect("a socket has a timeout");
        stream.set_nodelay(true).expect("a socket can be without delay");
        Self::over(stream)
    }

    pub(super) fn end_writing(&self) {
        self.stream.shutdown(Shutdown::Write).expect("our side was open");
    }

    /// Ends the connection with a reset.
    pub(super) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket can linger");
    }
}

impl<S: Read + Write> Wire<S> {
    pub(super) fn over(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the other side takes what is sent");
    }

    pub(super) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// One more read, of whatever comes. False at the end.
    fn more(&mut self) -> io::Result<bool> {
        let mut piece = [0; 64 << 10];
        let step = self.stream.read(&mut piece)?;
        self.ahead.extend_from_slice(&piece[..step]);
        Ok(step > 0)
    }

    /// What came, at least one byte; nothing at the end.
    pub(super) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.more()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    pub(super) fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            if !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..count).collect())
    }

    fn until(&mut self, mark: &[u8]) -> io::Result<Option<String>> {
        let mut from = 0;
        loop {
            if let Some(found) = memchr::memmem::find(&self.ahead[from..], mark) {
                let bytes: Vec<u8> = self.ahead.drain(..from + found + mark.len()).collect();
                return Ok(Some(String::from_utf8_lossy(&bytes[..bytes.len() - mark.len()]).into_owned()));
            }
            from = self.ahead.len().saturating_sub(mark.len());
            if !self.more()? {
                return match self.ahead.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// The head of a message; `None` where the other side has ended before its first byte.
    pub(super) fn head(&mut self) -> io::Result<Option<Message>> {
        let Some(head) = self.until(b"\r\n\r\n")? else { return Ok(None) };
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(field).collect();
        let framing = Framing::Empty;
        Ok(Some(Message { start, fields, framing, body: Vec::new(), trailers: Vec::new() }))
    }

    /// A whole request.
    pub(super) fn request(&mut self) -> io::Result<Option<Message>> {
        let Some(mut message) = self.head()? else { return Ok(None) };
        self.body_of_request(&mut message)?;
        Ok(Some(message))
    }

    pub(super) fn body_of_request(&mut self, message: &mut Message) -> io::Result<()> {
        match (message.is_chunked(), message.length()) {
            (true, _) => self.chunks(message),
            (false, Some(length)) => self.length(message, length),
            (false, None) => Ok(()),
        }
    }

    /// A whole answer to anything but HEAD; an interim one is given like any other.
    pub(super) fn answer(&mut self) -> Message {
        self.try_answer().expect("the answer comes whole")
    }

    pub(super) fn try_answer(&mut self) -> io::Result<Message> {
        let mut message = self.answer_head()?;
        match (message.status(), message.is_chunked(), message.length()) {
            (100..200 | 204 | 304, _, _) => {}
            (_, true, _) => self.chunks(&mut message)?,
            (_, false, Some(length)) => self.length(&mut message, length)?,
            (_, false, None) => {
                while self.more()? {}
                message.body = std::mem::take(&mut self.ahead);
                message.framing = Framing::UntilClose;
            }
        }
        Ok(message)
    }

    /// The head of an answer, as one to HEAD is.
    pub(super) fn answer_head(&mut self) -> io::Result<Message> {
        self.head()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Sends and gets one answer.
    pub(super) fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request);
        self.answer()
    }

    pub(super) fn try_answer_to(&mut self, request: impl AsRef<[u8]>) -> io::Result<Message> {
        self.try_send(request)?;
        self.try_answer()
    }

    fn length(&mut self, message: &mut Message, length: usize) -> io::Result<()> {
        message.framing = Framing::Length;
        message.body = self.exactly(length)?;
        Ok(())
    }

    fn chunks(&mut self, message: &mut Message) -> io::Result<()> {
        message.framing = Framing::Chunked;
        loop {
            let size = self.line()?;
            let size = usize::from_str_radix(&size, 16).expect("a chunk has a size");
            if size == 0 {
                break;
            }
            let chunk = self.exactly(size + 2)?;
            message.body.extend_from_slice(&chunk[..size]);
        }
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(());
            }
            message.trailers.push(field(&line));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        self.until(b"\r\n")?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Waits for the end of the connection; whatever else comes before it is an error of the test.
    pub(super) fn ended(&mut self) -> Ended {
        match self.some() {
            Ok(bytes) if bytes.is_empty() => Ended::Closed,
            Ok(bytes) => panic!("more came: {}", String::from_utf8_lossy(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ended::Reset,
            Err(error) => panic!("the connection has not ended: {error}"),
        }
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').expect("a field has a colon");
    (name.to_owned(), value.trim().to_owned())
}
