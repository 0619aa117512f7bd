//! Scripts over raw connections: a line per step, the same for simulated and real servers.
//!
//! - `set-up: SQL` runs on the primary; the standby has it afterwards.
//! - `a @ n0` opens connection `a` to node 0 and starts a session of user `postgres`; `a @ n0 raw` only connects.
//! - `a: Q SELECT 1 => T[x] D[1] C[SELECT 1] ZI` sends (several requests are parted by `;;`) and compares what comes back.
//!   `eof` is the end of the connection, `nothing` that nothing comes. In what is expected, `*` stands for anything in
//!   brackets, and `S*` for any number of ParameterStatus.
//! - `a: => …` sends nothing. `a until: Q … => …` asks until the answer is this one.
//! - `! …` is something done to servers or connections.

use std::collections::BTreeMap;

use super::messages;

/// Simulated or real servers: node 0 is the primary at first, node 1 its standby.
pub(crate) trait Stage {
    fn set_up(&mut self, sql: &str);
    /// Connects, and gives the connection's number.
    fn connect(&mut self, node: usize) -> usize;
    /// Sends; a connection that is gone swallows it.
    fn send(&mut self, connection: usize, bytes: &[u8]);
    /// What arrives next. `patient` waits as long as servers may take, else only as long as one waits for nothing.
    fn receive(&mut self, connection: usize, patient: bool) -> Received;
    /// Closes as an application does that goes away: end-of-file behind what was sent.
    fn close(&mut self, connection: usize);
    /// Breaks the connection.
    fn reset(&mut self, connection: usize);
    fn act(&mut self, action: &Action<'_>);
}

/// What a read brought.
pub(crate) enum Received {
    Bytes(Vec<u8>),
    End,
    Nothing,
}

/// Something done to servers.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    /// The process of the session dies.
    CrashSession(usize, i32),
    Promote(usize),
    Start(usize),
    StopFast(usize),
    StopImmediate(usize),
    /// Commits wait for this standby, or for none.
    Synchronous(&'a str),
}

struct Connection {
    number: usize,
    node: usize,
    buffer: Vec<u8>,
    ended: bool,
    pid: i32,
    key: i32,
}

struct Run<'a> {
    stage: &'a mut dyn Stage,
    connections: BTreeMap<String, Connection>,
}

/// Runs a script; gives where it went differently.
pub(crate) fn run(stage: &mut dyn Stage, script: &str) -> Vec<String> {
    let mut run = Run {
        stage,
        connections: BTreeMap::new(),
    };
    let mut differences = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Err(difference) = run.step(line) {
            differences.push(format!("{line}\n        {difference}"));
            // What follows depends on what was not so.
            break;
        }
    }
    let numbers: Vec<usize> = run.connections.values().map(|connection| connection.number).collect();
    numbers.into_iter().for_each(|number| stage.close(number));
    differences
}

impl Run<'_> {
    fn step(&mut self, line: &str) -> Result<(), String> {
        if let Some(sql) = line.strip_prefix("set-up:") {
            self.stage.set_up(sql.trim());
            return Ok(());
        }
        if let Some(action) = line.strip_prefix('!') {
            return self.act(action.trim());
        }
        if let Some((name, place)) = line.split_once(" @ n") {
            let (node, raw) = place.split_once(' ').map_or((place, false), |(node, _)| (node, true));
            return self.open(name, node.parse().expect("a node"), raw);
        }
        let (name, rest) = line.split_once(':').expect("a step");
        let (sent, expected) = rest.split_once("=>").expect("what is expected");
        match name.strip_suffix(" until") {
            Some(name) => self.until(name, sent.trim(), expected.trim()),
            None => self.exchange(name, sent.trim(), expected.trim()),
        }
    }

    fn open(&mut self, name: &str, node: usize, raw: bool) -> Result<(), String> {
        let connection = Connection {
            number: self.stage.connect(node),
            node,
            buffer: Vec::new(),
            ended: false,
            pid: 0,
            key: 0,
        };
        self.connections.insert(name.to_owned(), connection);
        if raw {
            return Ok(());
        }
        self.exchange(name, "startup user=postgres database=postgres", "R0 S* K ZI")
    }

    fn exchange(&mut self, name: &str, sent: &str, expected: &str) -> Result<(), String> {
        self.send(name, sent);
        let seen = self.listen(name, expected);
        matches(expected, &seen)
            .then_some(())
            .ok_or_else(|| format!("came: {}", seen.join(" ")))
    }

    fn until(&mut self, name: &str, sent: &str, expected: &str) -> Result<(), String> {
        let mut last = Vec::new();
        for _ in 0..200 {
            self.send(name, sent);
            last = self.listen(name, expected);
            if matches(expected, &last) {
                return Ok(());
            }
            // The other side needs a moment: as long as one waits for nothing.
            let number = self.connection(name).number;
            if let Received::Bytes(bytes) = self.stage.receive(number, false) {
                self.connection(name).buffer.extend(bytes);
            }
        }
        Err(format!("came to the last: {}", last.join(" ")))
    }

    fn send(&mut self, name: &str, sent: &str) {
        let requests = sent.split(";;").map(str::trim).filter(|request| !request.is_empty());
        let bytes: Vec<u8> = requests.flat_map(messages::request).collect();
        let number = self.connection(name).number;
        if !bytes.is_empty() {
            self.stage.send(number, &bytes);
        }
    }

    /// Reads as much as is expected: up to the last ReadyForQuery, the end, or as many messages.
    fn listen(&mut self, name: &str, expected: &str) -> Vec<String> {
        let wanted: Vec<&str> = expected.split_whitespace().collect();
        let readies = wanted.iter().filter(|token| token.starts_with('Z')).count();
        let patient = wanted != ["nothing"];
        let mut seen: Vec<String> = Vec::new();
        loop {
            let ready = seen.iter().filter(|token| token.starts_with('Z')).count();
            let done = match wanted.last() {
                Some(&"eof" | &"nothing") => false,
                Some(last) if last.starts_with('Z') => ready >= readies,
                _ => seen.len() >= wanted.len(),
            };
            if done {
                return seen;
            }
            match self.next(name, patient) {
                Some(token) => {
                    let end = token == "eof";
                    seen.push(token);
                    if end {
                        return seen;
                    }
                }
                None => {
                    seen.push("nothing".to_owned());
                    return seen;
                }
            }
        }
    }

    fn next(&mut self, name: &str, patient: bool) -> Option<String> {
        loop {
            let connection = self.connection(name);
            // The answer to SSLRequest and GSSENCRequest has no length.
            if matches!(connection.buffer.as_slice(), [b'N' | b'G' | b'S']) {
                return Some(char::from(connection.buffer.remove(0)).to_string());
            }
            if let Some(size) = connection.buffer.get(1..5) {
                let size = u32::from_be_bytes(size.try_into().expect("four bytes")) as usize + 1;
                if connection.buffer.len() >= size {
                    let message: Vec<u8> = connection.buffer.drain(..size).collect();
                    if message[0] == b'K' {
                        let number =
                            |at: usize| i32::from_be_bytes(message[at..at + 4].try_into().expect("four bytes"));
                        (connection.pid, connection.key) = (number(5), number(9));
                    }
                    return Some(messages::reply(message[0], &message[5..]));
                }
            }
            if connection.ended {
                return Some("eof".to_owned());
            }
            let number = connection.number;
            match self.stage.receive(number, patient) {
                Received::Bytes(bytes) => self.connection(name).buffer.extend(bytes),
                Received::End => self.connection(name).ended = true,
                Received::Nothing => return None,
            }
        }
    }

    fn connection(&mut self, name: &str) -> &mut Connection {
        self.connections
            .get_mut(name)
            .unwrap_or_else(|| panic!("no connection {name:?}"))
    }

    fn act(&mut self, action: &str) -> Result<(), String> {
        let (verb, object) = action.rsplit_once(' ').unwrap_or((action, ""));
        let node = || object.trim_start_matches('n').parse::<usize>().expect("a node");
        match verb {
            "cancel" | "cancel with a wrong key" => return self.cancel(object, verb == "cancel"),
            "close" => self.stage.close(self.connections[object].number),
            "reset" => self.stage.reset(self.connections[object].number),
            "crash session" => {
                let (node, pid) = (self.connections[object].node, self.connections[object].pid);
                self.stage.act(&Action::CrashSession(node, pid));
            }
            "promote" => self.stage.act(&Action::Promote(node())),
            "start" => self.stage.act(&Action::Start(node())),
            "fast stop" => self.stage.act(&Action::StopFast(node())),
            "immediate stop" => self.stage.act(&Action::StopImmediate(node())),
            "synchronous" => self.stage.act(&Action::Synchronous(object)),
            other => panic!("no action {other:?}"),
        }
        Ok(())
    }

    /// The side connection must end without a byte.
    fn cancel(&mut self, object: &str, right: bool) -> Result<(), String> {
        let (node, pid, key) = {
            let connection = &self.connections[object];
            (connection.node, connection.pid, connection.key ^ i32::from(!right))
        };
        let number = self.stage.connect(node);
        self.stage.send(number, &messages::cancel(pid, key));
        match self.stage.receive(number, true) {
            Received::End => Ok(()),
            Received::Bytes(bytes) => Err(format!("the cancel request was answered with {bytes:?}")),
            Received::Nothing => Err("the cancel request's connection stayed open".to_owned()),
        }
    }
}

/// Whether what was seen is what is expected, wildcards considered.
fn matches(expected: &str, seen: &[String]) -> bool {
    let mut seen = seen.iter().map(String::as_str).peekable();
    for token in expected.split_whitespace() {
        if token == "S*" {
            while seen.peek().is_some_and(|token| token.starts_with("S[")) {
                seen.next();
            }
        } else if !seen
            .next()
            .is_some_and(|one| alike(&token.replace('_', " "), &one.replace('_', " ")))
        {
            return false;
        }
    }
    seen.next().is_none()
}

fn alike(expected: &str, seen: &str) -> bool {
    match expected.split_once("[*]") {
        Some((start, _)) => seen.starts_with(&format!("{start}[")),
        None => expected == seen,
    }
}
