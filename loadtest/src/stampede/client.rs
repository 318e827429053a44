//! A client that fetches the value, and asks the database if the reply says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::database::Database;
use super::protection::Requests;

/// A client pauses for so long after a value. The clients begin at different times within the pause.
const PAUSE: Duration = Duration::from_millis(50);
/// A client that must wait for another one asks again after this time.
const WAIT: Duration = Duration::from_millis(10);
/// A reply that takes longer is missing.
const PATIENCE: Duration = Duration::from_secs(30);
/// No value is longer, in bytes.
const VALUE_MAX: usize = 1 << 20;

pub struct Client {
    stream: BufReader<TcpStream>,
    requests: Requests,
}

/// What a client does after a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It has the value.
    Use,
    /// It asks the database, and stores the value.
    Ask,
    /// It waits for the client that asks.
    Wait,
}

impl Client {
    pub fn new(stream: TcpStream, requests: Requests) -> Result<Client, String> {
        let set = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_nodelay(true));
        set.map_err(|error| format!("a connection cannot be set up: {error}"))?;
        Ok(Client { stream: BufReader::new(stream), requests })
    }

    /// Fetches the value again and again.
    pub fn load(&mut self, number: usize, database: &Database, goes_on: &impl Fn() -> bool) -> Result<(), String> {
        thread::sleep(PAUSE.mul_f64((number % 10) as f64 / 10.0));
        while goes_on() {
            match self.fetch()? {
                Next::Use => thread::sleep(PAUSE),
                Next::Wait => thread::sleep(WAIT),
                Next::Ask => {
                    database.ask();
                    self.store()?;
                }
            }
        }
        Ok(())
    }

    /// Stores the value.
    pub fn store(&mut self) -> Result<(), String> {
        self.send(self.requests.store.clone())?;
        match self.line()?.as_str() {
            "STORED" | "HD" => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Marks the value as stale.
    pub fn invalidate(&mut self) -> Result<(), String> {
        self.send(self.requests.invalidate.clone())?;
        match self.line()?.as_str() {
            "HD" => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    fn fetch(&mut self) -> Result<Next, String> {
        self.send(self.requests.fetch.clone())?;
        let line = self.line()?;
        let words: Vec<&str> = line.split(' ').collect();
        let (next, length) = match words[..] {
            ["END"] => return Ok(Next::Ask),
            ["VALUE", _, _, length] => (Next::Use, length),
            ["VA", length, ref flags @ ..] if flags.contains(&"W") => (Next::Ask, length),
            ["VA", "0", ..] => (Next::Wait, "0"),
            ["VA", length, ..] => (Next::Use, length),
            _ => return Err(unexpected(&line)),
        };
        let length: usize = length.parse().map_err(|_| unexpected(&line))?;
        let mut data = vec![0; length.min(VALUE_MAX) + 2];
        self.stream.read_exact(&mut data).map_err(|error| format!("the server sent no value: {error}"))?;
        if line.starts_with("VALUE") && self.line()? != "END" {
            return Err("the server did not end a get".into());
        }
        Ok(next)
    }

    fn send(&mut self, request: String) -> Result<(), String> {
        let sent = self.stream.get_mut().write_all(request.as_bytes());
        sent.map_err(|error| format!("the server takes no request: {error}"))
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Err("the server closed a connection".into()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("the server does not answer: {error}")),
        }
    }
}

fn unexpected(line: &str) -> String {
    format!("the server said \"{}\"", line.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::super::protection::Protection;
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn replies_say_who_asks_and_who_waits() {
        for (reply, expected) in [
            ("END\r\n", Ok(Next::Ask)),
            ("VALUE k 0 5\r\nvalue\r\nEND\r\n", Ok(Next::Use)),
            ("VA 5\r\nvalue\r\n", Ok(Next::Use)),
            ("VA 0 W\r\n\r\n", Ok(Next::Ask)),
            ("VA 0 Z\r\n\r\n", Ok(Next::Wait)),
            ("VA 5 X W\r\nvalue\r\n", Ok(Next::Ask)),
            ("VA 5 Z X\r\nvalue\r\n", Ok(Next::Use)),
            ("ERROR\r\n", Err(())),
            ("", Err(())),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
            let (mut other, _) = listener.accept().expect("a client waits");
            other.write_all(reply.as_bytes()).expect("an empty socket");
            other.shutdown(std::net::Shutdown::Write).expect("an open socket");
            let mut client = Client::new(stream, Protection::Win.requests(8, 4)).expect("an open socket");
            assert_eq!(client.fetch().map_err(|_| ()), expected, "{reply}");
        }
    }
}
