//! Makes a PNG small: the 256 most frequent shades, each pixel the nearest of them, compressed as well as zlib can. Text
//! on a plain ground has few colours more.
//!
//! Reads what a browser writes, eight bits a channel without interlacing (ISO/IEC 15948), and nothing else.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Colours of a palette.
const COLOURS: usize = 256;

/// Bits of a channel by which shades differ that are one here.
const SHIFT: u8 = 4;

type Colour = [u8; 3];

/// Returns the same picture in fewer bytes.
pub(crate) fn smaller(png: &[u8]) -> Result<Vec<u8>> {
    let (width, height, pixels) = decode(png)?;
    let mut counts: HashMap<Colour, u32> = HashMap::new();
    for pixel in &pixels {
        *counts.entry(*pixel).or_default() += 1;
    }
    // Shades that look the same are one, so that a rare colour is not lost to them.
    let mut shades: HashMap<Colour, (Colour, u32, u32)> = HashMap::new();
    for (colour, count) in &counts {
        let (best, most, sum) = shades.entry(colour.map(|channel| channel >> SHIFT)).or_insert((*colour, 0, 0));
        if (*count, *colour) > (*most, *best) {
            (*best, *most) = (*colour, *count);
        }
        *sum += count;
    }
    let mut palette: Vec<(Colour, u32)> = shades.values().map(|(colour, _, sum)| (*colour, *sum)).collect();
    palette.sort_by_key(|(colour, count)| (std::cmp::Reverse(*count), *colour));
    palette.truncate(COLOURS);
    let nearest = |colour: &Colour| {
        let distance =
            |other: &Colour| -> u32 { colour.iter().zip(other).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum() };
        palette.iter().enumerate().min_by_key(|(_, (other, _))| distance(other)).map_or(0, |(index, _)| index as u8)
    };
    let indices: HashMap<Colour, u8> = counts.keys().map(|colour| (*colour, nearest(colour))).collect();
    let mut rows = Vec::with_capacity(pixels.len() + height);
    for row in pixels.chunks(width) {
        rows.push(0);
        rows.extend(row.iter().map(|pixel| indices.get(pixel).copied().unwrap_or(0)));
    }
    let mut compressed = ZlibEncoder::new(Vec::new(), Compression::best());
    compressed.write_all(&rows)?;
    let mut out = SIGNATURE.to_vec();
    let size = [u32::try_from(width)?.to_be_bytes(), u32::try_from(height)?.to_be_bytes()].concat();
    chunk(&mut out, b"IHDR", &[&size[..], &[8, 3, 0, 0, 0]].concat());
    chunk(&mut out, b"PLTE", &palette.iter().flat_map(|(colour, _)| *colour).collect::<Vec<u8>>());
    chunk(&mut out, b"IDAT", &compressed.finish()?);
    chunk(&mut out, b"IEND", &[]);
    Ok(out)
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(kind);
    out.extend(data);
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    out.extend(crc.sum().to_be_bytes());
}

/// Returns width, height and the colours of all pixels.
fn decode(png: &[u8]) -> Result<(usize, usize, Vec<Colour>)> {
    let mut rest = png.strip_prefix(SIGNATURE).context("no PNG")?;
    let (mut header, mut compressed) = (None, Vec::new());
    while let Some((head, behind)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes(head[..4].try_into()?) as usize;
        let (data, behind) = behind.split_at_checked(length).context("a chunk is too short")?;
        match &head[4..] {
            b"IHDR" => header = Some(<[u8; 13]>::try_from(data)?),
            b"IDAT" => compressed.extend_from_slice(data),
            _ => {}
        }
        rest = behind.get(4..).context("a chunk has no check")?;
    }
    let header = header.context("no header")?;
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (width, height) = (number(0), number(4));
    let channels = match (header[8], header[9], header[12]) {
        (8, 2, 0) => 3,
        (8, 6, 0) => 4,
        other => anyhow::bail!("a PNG of another kind: {other:?}"),
    };
    let mut raw = Vec::new();
    ZlibDecoder::new(&compressed[..]).read_to_end(&mut raw)?;
    let stride = width * channels;
    ensure!(raw.len() == (stride + 1) * height, "the picture has another size");
    let mut before = vec![0_u8; stride];
    let mut pixels = Vec::with_capacity(width * height);
    for line in raw.chunks_mut(stride + 1) {
        let (filter, row) = line.split_at_mut(1);
        for at in 0..stride {
            let left = if at < channels { 0 } else { row[at - channels] };
            let corner = if at < channels { 0 } else { before[at - channels] };
            let up = before[at];
            let predicted = match filter[0] {
                0 => 0,
                1 => left,
                2 => up,
                3 => u16::midpoint(left.into(), up.into()) as u8,
                _ => paeth(left, up, corner),
            };
            row[at] = row[at].wrapping_add(predicted);
        }
        before.copy_from_slice(row);
        pixels.extend(row.chunks(channels).map(|pixel| [pixel[0], pixel[1], pixel[2]]));
    }
    Ok((width, height, pixels))
}

fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let estimate = i16::from(left) + i16::from(up) - i16::from(corner);
    let distance = |value: u8| (estimate - i16::from(value)).abs();
    [left, up, corner].into_iter().min_by_key(|value| distance(*value)).unwrap_or(corner)
}
