//! A server that lists keys and answers fetches as a test says.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

/// A key that the server lists. Its value is the key.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    key: String,
    last_access: u32,
}

impl Listed {
    pub(super) fn new(key: &str, last_access: u32) -> Listed {
        Listed { key: key.to_owned(), last_access }
    }
}

/// What the server says. It closes a connection after a part that a test gave it.
#[derive(Clone, Debug, Default)]
struct Script {
    keys: Vec<Listed>,
    /// The answers to `lru_crawler metadump`, to `mg` and to `ms`, in place of the true ones.
    list: Option<String>,
    fetch: Option<String>,
    store: Option<String>,
}

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) address: String,
}

impl Fake {
    /// A server of these keys. What it says to the first fetch, unless that is empty.
    pub(super) fn serving(keys: Vec<Listed>, fetch: &str) -> Fake {
        let fetch = (!fetch.is_empty()).then(|| fetch.to_owned());
        Fake::start(Script { keys, fetch, ..Script::default() })
    }

    /// A server that says this to the question for its keys.
    pub(super) fn listing(list: &str) -> Fake {
        Fake::start(Script { list: Some(list.to_owned()), ..Script::default() })
    }

    /// A server that says this to the first item.
    pub(super) fn storing(store: &str) -> Fake {
        Fake::start(Script { store: Some(store.to_owned()), ..Script::default() })
    }

    /// The threads of the server end with the process of the tests, or with their connections.
    fn start(script: Script) -> Fake {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it has one").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = script.clone();
                thread::spawn(move || script.serve(stream));
            }
        });
        Fake { address }
    }
}

impl Script {
    /// Answers a client until it goes, or until the script is at its end.
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut out = stream.try_clone()?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            let (reply, is_last) = match words[0] {
                "stats" => ("END\r\n".to_owned(), false),
                "lru_crawler" => match &self.list {
                    Some(list) => (list.clone(), true),
                    None => (self.listed(), false),
                },
                "mg" => match &self.fetch {
                    Some(fetch) => (fetch.clone(), true),
                    None => (fetched(&words), false),
                },
                "ms" => match &self.store {
                    Some(store) => (store.clone(), true),
                    None => (String::new(), false),
                },
                "mn" => ("MN\r\n".to_owned(), false),
                _ => (String::new(), false),
            };
            out.write_all(reply.as_bytes())?;
            if is_last {
                // The client sees the end behind the reply, for it has sent nothing that is left unread.
                return out.shutdown(std::net::Shutdown::Write);
            }
        }
        Ok(())
    }

    fn listed(&self) -> String {
        let line = |Listed { key, last_access }: &Listed| {
            format!("key={key} exp=-1 la={last_access} cas=1 fetch=no cls=1 size=70 flags=0 \n")
        };
        format!("OK\r\n{}END\r\n", self.keys.iter().map(line).collect::<String>())
    }
}

fn fetched(words: &[&str]) -> String {
    let opaque = words.last().expect("it ends with the opaque");
    format!("VA {} f0 t-1 c1 {opaque}\r\n{}\r\n", words[1].len(), words[1])
}
