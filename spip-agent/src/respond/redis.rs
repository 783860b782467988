//! Redis: any password is taken, the server describes itself, and what would write is refused for want of memory.
//! Nothing is stored, replicated, loaded or run.

use super::lines::{line, may_end};
use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["redis"], speaks_first: false, begin: || Box::new(Redis::default()) };

/// Words of a command that are looked at.
const WORDS: usize = 4;
/// The longest word that is looked at; longer ones are passed over.
const WORD_BYTES: usize = 32;
/// Arrays and strings that a server takes (proto-max-bulk-len, and the bound on a multibulk header).
const MAX_ARRAY: u64 = 1024 * 1024;
const MAX_STRING: u64 = 512 * 1024 * 1024;

/// A command that is being heard.
#[derive(Default)]
struct Redis {
    /// Strings of the array that are outstanding.
    strings: u64,
    /// Bytes of the string at hand that are outstanding, with its line end.
    skip: u64,
    words: Vec<Vec<u8>>,
}

impl Dialogue for Redis {
    fn is_worth_hearing(&mut self, heard: &[u8], looked: usize) -> bool {
        self.skip > 0 || self.strings > 0 || may_end(heard, looked)
    }

    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        if self.skip > 0 {
            let taken = heard.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= taken as u64;
            if self.skip == 0 && self.strings == 0 {
                self.command(scene, reply);
            }
            return taken;
        }
        let Some((text, used)) = line(heard) else { return 0 };
        if self.strings > 0 {
            return self.string(text, used, heard, scene, reply);
        }
        match text.strip_prefix(b"*") {
            Some(count) => match number(count).filter(|count| *count <= MAX_ARRAY) {
                Some(count) => self.strings = count,
                None => fail("-ERR Protocol error: invalid multibulk length", reply),
            },
            None => {
                self.words = text.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).map(short).collect();
                if !self.words.is_empty() {
                    self.command(scene, reply);
                }
            }
        }
        used
    }
}

impl Redis {
    /// The head of a string, and the string where it is short and whole.
    fn string(&mut self, text: &[u8], used: usize, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some(length) = text.strip_prefix(b"$").and_then(number).filter(|length| *length <= MAX_STRING) else {
            fail("-ERR Protocol error: invalid bulk length", reply);
            return used;
        };
        let whole = usize::try_from(length).unwrap_or(usize::MAX);
        if whole <= WORD_BYTES {
            let Some(word) = heard.get(used..used + whole) else { return 0 };
            if heard.len() < used + whole + 2 {
                return 0;
            }
            if self.words.len() < WORDS {
                self.words.push(word.to_vec());
            }
            self.strings -= 1;
            if self.strings == 0 {
                self.command(scene, reply);
            }
            return used + whole + 2;
        }
        if self.words.len() < WORDS {
            self.words.push(Vec::new());
        }
        self.strings -= 1;
        self.skip = length + 2;
        used
    }

    fn command(&mut self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        let words = std::mem::take(&mut self.words);
        let upper: Vec<Vec<u8>> = words.iter().take(2).map(|word| word.to_ascii_uppercase()).collect();
        let words: Vec<&[u8]> = upper.iter().map(Vec::as_slice).collect();
        reply.understood();
        match words.as_slice() {
            [b"PING", ..] => reply.line("redis_answer", "+PONG"),
            [b"AUTH", ..] => reply.line("redis_login", "+OK"),
            [b"HELLO", rest @ ..] => hello(rest.first() == Some(&b"3".as_slice()), scene, reply),
            [b"INFO", ..] => info(scene, reply),
            [b"QUIT"] => {
                reply.line("redis_farewell", "+OK");
                reply.close();
            }
            [b"SELECT" | b"CLIENT" | b"SLAVEOF" | b"REPLICAOF", ..]
            | [b"CONFIG", b"SET" | b"REWRITE" | b"RESETSTAT"] => {
                reply.line("redis_answer", "+OK");
            }
            [b"CONFIG", b"GET"] | [b"COMMAND" | b"KEYS" | b"SCAN" | b"LRANGE" | b"SMEMBERS", ..] => {
                reply.line("redis_answer", "*0");
            }
            [b"DBSIZE" | b"EXISTS" | b"TTL", ..] => reply.line("redis_answer", ":0"),
            [b"GET" | b"HGET", ..] => reply.line("redis_answer", "$-1"),
            [b"TYPE", ..] => reply.line("redis_answer", "+none"),
            [b"SAVE", ..] => reply.line("redis_refusal", "-ERR"),
            [b"BGSAVE", ..] => reply.line("redis_answer", "+Background saving started"),
            [b"MODULE", b"LOAD"] => {
                reply.line("redis_refusal", "-ERR Error loading the extension. Please check the server logs.");
            }
            [
                b"SET" | b"SETEX" | b"SETNX" | b"MSET" | b"APPEND" | b"LPUSH" | b"RPUSH" | b"HSET" | b"SADD" | b"ZADD"
                | b"XADD" | b"EVAL" | b"EVALSHA" | b"INCR" | b"RESTORE",
                ..,
            ] => {
                reply.refuse("redis_refusal", "-OOM command not allowed when used memory > 'maxmemory'.");
            }
            [b"DEL" | b"UNLINK" | b"EXPIRE" | b"PUBLISH", ..] => reply.line("redis_answer", ":0"),
            [b"FLUSHALL" | b"FLUSHDB", ..] => reply.line("redis_answer", "+OK"),
            // The server's text names the command, which is the client's.
            _ => reply.refuse("redis_refusal", "-ERR unknown command"),
        }
    }
}

fn hello(is_version_3: bool, scene: &Scene<'_>, reply: &mut Reply<'_>) {
    let (map, protocol) = if is_version_3 { ("%7", 3) } else { ("*14", 2) };
    let version = &scene.face.redis;
    let [id, ..] = scene.random::<1>("redis");
    reply.line(
        "redis_login",
        &format!(
            "{map}\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n${}\r\n{version}\r\n$5\r\nproto\r\n:{protocol}\r\n\
             $2\r\nid\r\n:{id}\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0",
            version.len()
        ),
    );
}

fn info(scene: &Scene<'_>, reply: &mut Reply<'_>) {
    let [a, b, c] = scene.face.number("redis");
    let text = format!(
        "# Server\r\nredis_version:{}\r\nredis_mode:standalone\r\nos:{}\r\narch_bits:64\r\nprocess_id:{}\r\n\
         tcp_port:{}\r\nuptime_in_days:{}\r\nexecutable:/usr/bin/redis-server\r\nconfig_file:/etc/redis/redis.conf\r\n\
         \r\n# Clients\r\nconnected_clients:1\r\n\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n\
         # Keyspace\r\n",
        scene.face.redis,
        scene.face.kernel,
        u16::from(a) + 400,
        scene.port,
        u16::from(b) % 90 + u16::from(c) % 3,
    );
    reply.line("redis_answer", &format!("${}\r\n{text}", text.len()));
}

fn fail(text: &str, reply: &mut Reply<'_>) {
    reply.line("redis_refusal", text);
    reply.close();
}

/// A word that is looked at; what is longer is none that counts.
fn short(word: &[u8]) -> Vec<u8> {
    if word.len() <= WORD_BYTES { word.to_vec() } else { Vec::new() }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
