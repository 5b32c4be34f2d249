//! Tests only: the running test as a process of its own, that other processes' load and allocations do not touch.
//!
//! In: the test's name. Out: a child that runs the same test and talks by lines. Must not: be part of the program.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

const VARIABLE: &str = "ERGOMETER_TEST_AGAIN";

/// Whether this is the child of the named test.
pub fn is_child(test: &str) -> bool {
    std::env::var(VARIABLE).is_ok_and(|t| t == test)
}

/// In the child: says a word and waits until the parent answers.
pub fn send(word: &str) {
    println!("\n@{word}");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// The child, killed when dropped.
pub struct Respawned {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Respawned {
    /// Starts the named test (full path of the module and its name) again.
    pub fn start(test: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(VARIABLE, test)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the child says next; it waits meanwhile.
    pub fn receive(&mut self) -> String {
        let mut line = String::new();
        while !line.starts_with('@') {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the child ended early");
        }
        line[1..].trim().to_string()
    }

    /// Lets it go on.
    pub fn go(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
    }

    /// Ends it.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Respawned {
    fn drop(&mut self) {
        self.end();
    }
}
