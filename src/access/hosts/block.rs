//! The hosts file: one block an environment, everything else byte for byte as it was.
//!
//! ```text
//! # devstack s3www begin
//! 127.0.0.1 s3www.test
//! # devstack s3www end
//! ```
//! A file that did not end with a newline gets one, and the block's first line says `begin after no newline`, so
//! that its removal can take the newline away again.

use std::net::IpAddr;

/// A line of a block.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// The name.
    pub name: String,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.address, self.name)
    }
}

/// Why a line may not be written to a hosts file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The line is not an address and a name.
    #[error("{0:?} is not an address and a name")]
    Form(String),
    /// The address is of neither this host nor a private network.
    #[error("{0} is neither a loopback nor a private address")]
    Address(IpAddr),
    /// The name is not one that devstack manages.
    #[error("{0:?} is not a lower-case host name below .test or .localhost")]
    Name(String),
}

impl Entry {
    /// A line that may be written: a loopback or private address, and a name below `.test` or `.localhost`, the two
    /// top-level domains that RFC 6761 keeps for such use.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(address: IpAddr, name: &str) -> Result<Self, EntryError> {
        if !is_local(address) {
            return Err(EntryError::Address(address));
        }
        if !is_managed_name(name) {
            return Err(EntryError::Name(name.to_owned()));
        }
        Ok(Self { address, name: name.to_owned() })
    }
}

impl std::str::FromStr for Entry {
    type Err = EntryError;

    fn from_str(line: &str) -> Result<Self, EntryError> {
        let form = || EntryError::Form(line.to_owned());
        let (address, name) = line.split_once(' ').ok_or_else(form)?;
        Self::new(address.parse().map_err(|_| form())?, name)
    }
}

/// Whether a name may be given this address: one of this host or of a private network.
pub fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

fn is_managed_name(name: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| edge(byte) || byte == b'-')
            && label.bytes().next().is_some_and(edge)
            && label.bytes().next_back().is_some_and(edge)
    };
    let below = name.strip_suffix(".test").or_else(|| name.strip_suffix(".localhost"));
    name.len() <= 253 && below.is_some_and(|below| below.split('.').all(is_label))
}

/// How a block compares with what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The block is there, once, as it should be.
    Present,
    /// Nothing of it is there.
    Absent,
    /// It is stale, damaged, edited or there twice.
    Differs,
}

/// A name that another line of the file gives another address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The name.
    pub name: String,
    /// The address that it has there, as written.
    pub address: String,
    /// The line, 1-based.
    pub line: usize,
}

/// How the environment's block compares with `entries`.
pub fn state(text: &[u8], environment: &str, entries: &[Entry]) -> State {
    if !has_block(text, environment) {
        State::Absent
    } else if with_block(text, environment, entries) == text {
        State::Present
    } else {
        State::Differs
    }
}

/// Whether anything of the environment's block is there. The text need not be UTF-8.
pub fn has_block(text: impl AsRef<[u8]>, environment: &str) -> bool {
    lines(text.as_ref()).any(|line| marker(line).is_some_and(|marker| marker.environment == environment))
}

/// The environments that have a block, with its valid lines, in the order of the file.
pub fn blocks(text: &[u8]) -> Vec<(String, Vec<Entry>)> {
    let mut found: Vec<(String, Vec<Entry>)> = Vec::new();
    let mut open = false;
    for line in lines(text) {
        match marker(line) {
            Some(Marker { environment, edge: Edge::Begin { .. } }) => {
                found.push((environment.to_owned(), Vec::new()));
                open = true;
            }
            Some(_) => open = false,
            None if open => {
                if let Some((_, entries)) = found.last_mut() {
                    entries.extend(std::str::from_utf8(line).ok().and_then(|line| line.trim_end().parse().ok()));
                }
            }
            None => {}
        }
    }
    found
}

/// Lines outside the environment's own block that give one of its names another address.
pub fn conflicts(text: &[u8], environment: &str, entries: &[Entry]) -> Vec<Conflict> {
    let mut found = Vec::new();
    let mut own = false;
    for (index, line) in lines(text).enumerate() {
        if let Some(marker) = marker(line) {
            own = marker.environment == environment && matches!(marker.edge, Edge::Begin { .. });
            continue;
        }
        let line = String::from_utf8_lossy(line);
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().filter(|_| !own) else { continue };
        for name in words {
            let same = |entry: &&Entry| entry.name.eq_ignore_ascii_case(name);
            if let Some(entry) = entries.iter().find(same)
                && address.parse() != Ok(entry.address)
            {
                found.push(Conflict { name: entry.name.clone(), address: address.to_owned(), line: index + 1 });
            }
        }
    }
    found
}

/// The file with the environment's block as it should be: where it was, else at the end.
pub fn with_block(text: &[u8], environment: &str, entries: &[Entry]) -> Vec<u8> {
    let (mut rest, place) = cut(text, environment);
    let (at, mut joined) = place.unwrap_or((rest.len(), false));
    let newline = newline_of(text);
    let mut block = Vec::new();
    if at > 0 && rest.get(at - 1) != Some(&b'\n') {
        block.extend_from_slice(newline);
        joined = true;
    }
    let begin = format!("# devstack {environment} begin{}", if joined { JOINED } else { "" });
    let body = entries.iter().map(ToString::to_string);
    for line in std::iter::once(begin).chain(body).chain([format!("# devstack {environment} end")]) {
        block.extend_from_slice(line.as_bytes());
        block.extend_from_slice(newline);
    }
    rest.splice(at..at, block);
    rest
}

/// The file without the environment's block: as it was before the block came.
pub fn without_block(text: &[u8], environment: &str) -> Vec<u8> {
    let (mut rest, place) = cut(text, environment);
    if let Some((at, true)) = place {
        let after = rest.get(at..).and_then(|after| lines(after).next());
        match after.and_then(marker) {
            // The newline was added for the first of several blocks; the next one inherits that knowledge.
            Some(Marker { environment, edge: Edge::Begin { joined: false } }) => {
                let word = at + format!("# devstack {environment} begin").len();
                rest.splice(word..word, JOINED.bytes());
            }
            None if after.is_none() => {
                // The file's own newline, not whatever its end looks like: a last line may end with a lone return.
                // An editor may have made another of it.
                let own = rest.strip_suffix(newline_of(&rest)).or_else(|| rest.strip_suffix(b"\n"));
                let length = own.map_or(rest.len(), <[u8]>::len);
                rest.truncate(length);
            }
            _ => {}
        }
    }
    rest
}

/// What the first line of a block says after `begin` where the newline before it is devstack's.
const JOINED: &str = " after no newline";

struct Marker<'a> {
    environment: &'a str,
    edge: Edge,
}

enum Edge {
    Begin { joined: bool },
    End,
}

/// The newline of the file's first line. A lone line that ends with a carriage return is taken for one of DOS that
/// lacks its newline, so that the answer is the same before and after devstack gives it one.
fn newline_of(text: &[u8]) -> &'static [u8] {
    let dos = lines(text).next().is_some_and(|line| line.ends_with(b"\r\n") || line.ends_with(b"\r"));
    if dos { b"\r\n" } else { b"\n" }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

fn marker(line: &[u8]) -> Option<Marker<'_>> {
    let line = std::str::from_utf8(line).ok()?.trim();
    let (environment, edge) = line.strip_prefix("# devstack ")?.split_once(' ')?;
    let edge = match edge {
        "begin" => Edge::Begin { joined: false },
        "end" => Edge::End,
        edge if edge.strip_prefix("begin") == Some(JOINED) => Edge::Begin { joined: true },
        _ => return None,
    };
    Some(Marker { environment, edge })
}

/// The file without anything of the environment's block, where its first piece was, and whether the newline before
/// it is devstack's. A block that lost its end reaches as far as the lines that devstack could have written.
fn cut(text: &[u8], environment: &str) -> (Vec<u8>, Option<(usize, bool)>) {
    let all: Vec<&[u8]> = lines(text).collect();
    let is_end = |line: &[u8]| {
        marker(line).is_some_and(|marker| marker.environment == environment && matches!(marker.edge, Edge::End))
    };
    let could_be_ours = |line: &[u8]| std::str::from_utf8(line).is_ok_and(|line| line.trim().parse::<Entry>().is_ok());
    let mut rest = Vec::with_capacity(text.len());
    let mut place = None;
    let mut index = 0;
    while let Some(line) = all.get(index) {
        index += 1;
        let Some(Marker { environment: owner, edge }) = marker(line) else {
            rest.extend_from_slice(line);
            continue;
        };
        if owner != environment {
            rest.extend_from_slice(line);
            continue;
        }
        let joined = matches!(edge, Edge::Begin { joined: true });
        let place = place.get_or_insert((rest.len(), false));
        place.1 |= joined;
        if matches!(edge, Edge::End) {
            continue;
        }
        let body = &all[index..];
        let next_marker = body.iter().position(|line| marker(line).is_some());
        index += match next_marker {
            Some(end) if is_end(body[end]) => end + 1,
            _ => body.iter().take_while(|line| could_be_ours(line)).count(),
        };
    }
    (rest, place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(line: &str) -> Entry {
        line.parse().unwrap()
    }

    fn set(text: &str, environment: &str, entries: &[&str]) -> String {
        let entries: Vec<Entry> = entries.iter().map(|line| entry(line)).collect();
        String::from_utf8(with_block(text.as_bytes(), environment, &entries)).unwrap()
    }

    fn unset(text: &str, environment: &str) -> String {
        String::from_utf8(without_block(text.as_bytes(), environment)).unwrap()
    }

    #[test]
    fn only_harmless_lines_are_allowed() {
        for good in ["127.0.0.1 s3www.test", "::1 a.localhost", "172.18.0.5 a-1.env.test", "fd00::1 x.test"] {
            assert!(good.parse::<Entry>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1",
            "127.0.0.1 ",
            "127.0.0.1 localhost",
            "127.0.0.1 .test",
            "127.0.0.1 test",
            "127.0.0.1 www.example.com",
            "127.0.0.1 a..test",
            "127.0.0.1 -a.test",
            "127.0.0.1 A.test",
            "127.0.0.1 a.test b.test",
            "127.0.0.1 a.test\n0.0.0.0 b",
            "127.0.0.1  a.test",
            "8.8.8.8 a.test",
            "0.0.0.0 a.test",
            "2001:db8::1 a.test",
            "host a.test",
        ] {
            assert!(bad.parse::<Entry>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_block_is_added_replaced_in_place_and_removed() {
        let before = "127.0.0.1 localhost\n\n# mine\n";
        let one = set(before, "s3www", &["127.0.0.1 s3www.test"]);
        insta::assert_snapshot!(one, @"
        127.0.0.1 localhost

        # mine
        # devstack s3www begin
        127.0.0.1 s3www.test
        # devstack s3www end
        ");
        let edited = format!("{}10.0.0.1 later\n", one.replace("127.0.0.1 s3www", "127.9.9.9 s3www"));
        assert_eq!(state(one.as_bytes(), "s3www", &[entry("127.0.0.1 s3www.test")]), State::Present);
        assert_eq!(state(edited.as_bytes(), "s3www", &[entry("127.0.0.1 s3www.test")]), State::Differs);
        assert_eq!(state(before.as_bytes(), "s3www", &[]), State::Absent);
        assert_eq!(set(&edited, "s3www", &["127.0.0.1 s3www.test"]), format!("{one}10.0.0.1 later\n"));
        assert_eq!(unset(&edited, "s3www"), format!("{before}10.0.0.1 later\n"));
        assert!(has_block(&one, "s3www") && !has_block(&one, "s3") && !has_block(before, "s3www"));
    }

    #[test]
    fn files_of_every_shape_come_back_as_they_were() {
        for before in
            ["", "\n", "127.0.0.1 a", "127.0.0.1 a\n", "127.0.0.1 a\r\n", "a\r\nb", "\u{feff}x\n\n\n", "# devstack\n"]
        {
            let one = set(before, "one", &["127.0.0.1 a.test"]);
            let two = set(&one, "two", &["127.0.0.1 b.test", "::1 b.test"]);
            assert_eq!(unset(&one, "one"), before, "{before:?}");
            assert_eq!(unset(&unset(&two, "two"), "one"), before, "{before:?}");
            assert_eq!(unset(&unset(&two, "one"), "two"), before, "{before:?}");
            assert_eq!(set(&one, "one", &["127.0.0.1 a.test"]), one, "{before:?}");
        }
    }

    #[test]
    fn what_a_person_adds_below_a_block_keeps_its_line() {
        let file = set("127.0.0.1 a", "one", &["127.0.0.1 a.test"]) + "10.0.0.1 mine\n";
        assert_eq!(unset(&file, "one"), "127.0.0.1 a\n10.0.0.1 mine\n");
    }

    #[test]
    fn damaged_blocks_lose_only_lines_that_could_be_ours() {
        let table = [
            ("x\n# devstack e begin\n127.0.0.1 a.test\n10.1.1.1 printer\n", "x\n10.1.1.1 printer\n"),
            ("x\n127.0.0.1 a.test\n# devstack e end\ny\n", "x\n127.0.0.1 a.test\ny\n"),
            ("# devstack e begin\n# devstack f begin\n# devstack f end\n", "# devstack f begin\n# devstack f end\n"),
            ("# devstack e begin\n# devstack e end\nx\n# devstack e begin\n# devstack e end\n", "x\n"),
            ("# devstack e begin\nanything at all\n# devstack e end\nx\n", "x\n"),
        ];
        for (text, rest) in table {
            assert_eq!(unset(text, "e"), rest, "{text:?}");
            assert_eq!(state(text.as_bytes(), "e", &[entry("127.0.0.1 c.test")]), State::Differs, "{text:?}");
        }
    }

    #[test]
    fn other_lines_with_the_same_name_are_told() {
        let text = set("10.0.0.9  other S3WWW.test # old\n127.0.0.1 s3www.test\n", "s3www", &["127.0.0.2 s3www.test"]);
        let found = conflicts(text.as_bytes(), "s3www", &[entry("127.0.0.1 s3www.test")]);
        assert_eq!(found, [Conflict { name: "s3www.test".into(), address: "10.0.0.9".into(), line: 1 }]);
        let two = set(&text, "two", &["127.0.0.3 s3www.test"]);
        assert_eq!(conflicts(two.as_bytes(), "s3www", &[entry("127.0.0.1 s3www.test")]).len(), 2);
        assert_eq!(blocks(two.as_bytes()).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["s3www", "two"]);
        assert_eq!(blocks(two.as_bytes())[1].1, [entry("127.0.0.3 s3www.test")]);
    }

    #[test]
    fn a_last_line_that_ends_with_a_lone_return_keeps_it() {
        for before in ["\n\r", "a\n b\r", "a\r", "a\r\nb\r", "\r"] {
            let with = with_block(before.as_bytes(), "e", &[entry("127.0.0.1 a.test")]);
            assert_eq!(without_block(&with, "e"), before.as_bytes(), "{before:?}");
        }
    }

    #[test]
    fn newlines_that_an_editor_changed_go_all_the_same() {
        let with = with_block(b"a\r\nb", "e", &[entry("127.0.0.1 a.test")]);
        let edited = String::from_utf8(with).unwrap().replace("\r\n", "\n").replacen("a\n", "a\r\n", 1);
        assert_eq!(without_block(edited.as_bytes(), "e"), b"a\r\nb");
    }

    proptest! {
        // Returns and newlines are what this format turns on; most random bytes are neither.
        #[test]
        fn any_newlines_survive(before in "[a\r\n]{0,8}") {
            let with = with_block(before.as_bytes(), "e", &[entry("127.0.0.1 a.test")]);
            prop_assert_eq!(without_block(&with, "e"), before.as_bytes());
        }

        #[test]
        fn any_bytes_survive(before in proptest::collection::vec(any::<u8>(), 0..80)) {
            let entries = [entry("127.0.0.1 a.test")];
            let with = with_block(&before, "e", &entries);
            prop_assert_eq!(state(&with, "e", &entries), State::Present);
            prop_assert_eq!(without_block(&with, "e"), before);
        }
    }
}
