//! Mutations: what goes wrong in a client's bytes, by accident or on purpose.
//!
//! The generator is a fixed one of a few lines (xorshift64*, Vigna 2016): a run must repeat exactly, on every machine
//! and after every update of a library.

/// No input is longer: a hello of the greatest length fits, and so does a payload that fills a few buffers.
pub const MAX_INPUT_BYTES: usize = 40 * 1024;

/// Values that bounds are made of.
const EDGES: [u64; 12] = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x3fff, 0x4000, 0x7fff, 0x8000, 0xffff, 0xff_ffff];

/// Numbers that look random.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }
}

/// An input made from one of `seeds`, with up to eight mutations.
#[must_use]
pub fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = pick(seeds, random).to_vec();
    for _ in 0..=random.below(8) {
        mutate(&mut bytes, seeds, random);
        bytes.truncate(MAX_INPUT_BYTES);
    }
    bytes
}

fn pick<'a>(seeds: &'a [Vec<u8>], random: &mut Random) -> &'a [u8] {
    seeds.get(random.below(seeds.len())).map_or(&[], Vec::as_slice)
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    // Mostly short, now and then long.
    let most = if random.below(8) == 0 { 4096 } else { 16 };
    let length = 1 + random.below(most);
    let end = (at + length).min(bytes.len());
    match random.below(11) {
        0 => flip(bytes, random),
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        2 => write_edge(bytes, at, random),
        3 => write_length(bytes, at, random),
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..end)),
        6 => {
            let copy = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        7 => {
            let noise: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, noise);
        }
        8 => {
            let same = vec![random.next() as u8; length];
            bytes.splice(at..end, same);
        }
        9 => {
            let other = pick(seeds, random);
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let copy = bytes.clone();
            bytes.extend_from_slice(&copy);
        }
    }
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = random.below(bytes.len());
    let bit = random.below(8);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

/// A number at the edge of something, in one to four bytes, the high or the low one first.
fn write_edge(bytes: &mut [u8], at: usize, random: &mut Random) {
    let value = EDGES[random.below(EDGES.len())].wrapping_add(random.below(3) as u64).wrapping_sub(1);
    write_number(bytes, at, value, random);
}

/// The number of bytes from here to the end, about: most length fields mean that.
fn write_length(bytes: &mut [u8], at: usize, random: &mut Random) {
    let rest = (bytes.len() - at.min(bytes.len())) as u64;
    let value = rest.wrapping_add(random.below(7) as u64).wrapping_sub(5);
    write_number(bytes, at, value, random);
}

fn write_number(bytes: &mut [u8], at: usize, value: u64, random: &mut Random) {
    let width = 1 + random.below(4);
    let little = random.below(2) == 0;
    let Some(place) = bytes.get_mut(at..at + width) else { return };
    let number = value.to_be_bytes();
    place.copy_from_slice(&number[number.len() - width..]);
    if little {
        place.reverse();
    }
}
