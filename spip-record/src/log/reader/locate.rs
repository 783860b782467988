//! Finds a file again, and the one that comes after it.
//!
//! A file is recognised by how it begins, not by its name or inode: both change when it is rotated, compressed or
//! copied. The inode only says where to look first. A file that cannot be found is placed by the one that was read
//! before it, or by the time in its name.

use super::super::Error;
use super::super::batch::Notice;
use super::super::cursor::{Cursor, Mismatch};
use super::super::directory::{self, Entry, Order};
use super::super::position::{HEAD_BYTES, Mark, Place};
use super::super::source::Source;
use super::{Reader, Start, State};

impl Reader {
    /// Opens the file to go on with. False: there is none for now.
    pub(super) fn take_up(&mut self) -> Result<bool, Error> {
        match &self.state {
            State::Begin => self.begin(),
            State::At { place, truncated } => {
                let (place, truncated) = (place.clone(), *truncated);
                self.find_again(&place, truncated)
            }
            State::Between => {
                let entries = directory::list(&self.log)?;
                let (_, next) = self.successor(&entries, None);
                self.note_lost(&entries, next);
                self.start_at(next.and_then(|next| entries.get(next)))
            }
            State::Reading(_) => Ok(true),
            State::Over(_) => Ok(false),
        }
    }

    /// Begins without a position.
    fn begin(&mut self) -> Result<bool, Error> {
        let entries = directory::list(&self.log)?;
        let oldest = match self.options.start {
            Start::Oldest => entries.first(),
            Start::End => None,
        };
        if entries.is_empty() && !self.options.follow {
            return Err(Error::Open { path: self.log.clone(), cause: std::io::ErrorKind::NotFound.into() });
        }
        if self.options.start == Start::Oldest {
            self.note_lost(&entries, Some(0));
            return self.start_at(oldest);
        }
        // Whatever is closed already counts as read.
        let closed = || entries.iter().rev().filter(|entry| entry.order != Order::Current);
        if let Some(Order::Closed(time)) = closed().next().map(|entry| &entry.order) {
            self.through = Some(time.clone());
        }
        if let Some((entry, head)) =
            closed().find_map(|entry| Some((entry, head(entry).filter(|head| !head.is_empty())?)))
        {
            let failed = |cause| Error::Open { path: entry.path.clone(), cause };
            let mut cursor = Cursor::open(entry, self.options.max_line_bytes).map_err(failed)?;
            cursor.assume(head);
            let mark = cursor.mark();
            self.remember(entry, mark);
        }
        let Some(current) = entries.last().filter(|entry| entry.order == Order::Current) else {
            self.state = State::Between;
            return Ok(false);
        };
        let Some(mut cursor) = self.open_entry(current)? else { return Ok(true) };
        cursor.seek_to_end().map_err(|cause| Error::Read { path: current.path.clone(), cause })?;
        self.state = State::reading(cursor);
        Ok(true)
    }

    /// Begins to read a file of the list. True where another attempt may help.
    fn start_at(&mut self, entry: Option<&Entry>) -> Result<bool, Error> {
        let Some(entry) = entry else { return Ok(false) };
        if let Some(cursor) = self.open_entry(entry)? {
            self.state = State::reading(cursor);
        }
        Ok(true)
    }

    /// Goes on at `place`, in whatever file holds what was read until there.
    fn find_again(&mut self, place: &Place, truncated: bool) -> Result<bool, Error> {
        if place.offset == 0 {
            self.state = State::Between;
            return Ok(true);
        }
        let entries = directory::list(&self.log)?;
        let (device, inode) = (place.mark.device, place.mark.inode);
        let mut rewritten = None;
        for entry in likely(&entries, &place.mark) {
            match Cursor::resume(entry, place, self.options.max_line_bytes) {
                Ok(cursor) => {
                    if let Order::Closed(time) = &entry.order {
                        self.unread.remove(time);
                    }
                    self.state = State::reading(cursor);
                    return Ok(true);
                }
                Err(Mismatch::Other) => {}
                Err(Mismatch::Rewritten) => rewritten = rewritten.or(Some(entry)),
                Err(Mismatch::Failed(error)) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
                // Another one may be it; but not knowing is no reason to give up one that has its inode.
                Err(Mismatch::Failed(cause)) if entry.is(device, inode) => {
                    return Err(Error::Open { path: entry.path.clone(), cause });
                }
                Err(Mismatch::Failed(_)) => {}
            }
        }
        if let Some(entry) = directory::find(&self.log, device, inode).ok().flatten()
            && let Ok(cursor) = Cursor::resume(&entry, place, self.options.max_line_bytes)
        {
            self.state = State::reading(cursor);
            return Ok(true);
        }
        let path = self.log.with_file_name(&place.mark.name);
        if let Some(entry) = rewritten {
            let Some(cursor) = self.open_entry(entry)? else { return Ok(true) };
            self.notices.push(Notice::Rewritten { path: entry.path.clone(), read_bytes: place.offset });
            self.state = State::reading(cursor);
            return Ok(true);
        }
        self.notices.push(match truncated {
            true => Notice::Truncated { path, read_bytes: place.offset },
            false => Notice::Lost { path, read_bytes: place.offset, size_bytes: None },
        });
        let time = directory::time_in(&self.log, &place.mark.name).map(str::to_owned);
        self.through = time.max(self.through.take());
        self.state = State::Between;
        Ok(true)
    }

    /// Finds the file that is read now among `entries`, and the one that comes next: where there is no file now, or it
    /// is not found, behind the last one that is known to be read.
    pub(super) fn successor(&mut self, entries: &[Entry], now: Option<&Mark>) -> (Option<usize>, Option<usize>) {
        if self.vain.as_deref() == Some(entries) {
            return (None, None);
        }
        // While it is open, its inode belongs to no other file.
        let own = now.and_then(|now| {
            let position = entries.iter().position(|entry| entry.is(now.device, now.inode));
            position.or_else(|| find(entries, now))
        });
        let next = match own.or_else(|| self.done.as_ref().and_then(|done| find(entries, done))) {
            Some(before) => Some(before + 1),
            None => {
                let time = now.and_then(|now| directory::time_in(&self.log, &now.name));
                let through = time.max(self.through.as_deref());
                entries.iter().position(|entry| match (&entry.order, through) {
                    (Order::Closed(time), Some(through)) => time.as_str() > through,
                    (Order::Current, _) | (_, None) => true,
                    (_, Some(_)) => false,
                })
            }
        };
        let next = next.filter(|next| *next < entries.len());
        self.vain = next.is_none().then(|| entries.to_vec());
        (own, next)
    }
}

/// Iterates over the files in the order in which one of them is likely to be the marked one: by inode, then by age.
fn likely<'a>(entries: &'a [Entry], mark: &Mark) -> impl Iterator<Item = &'a Entry> {
    let (device, inode) = (mark.device, mark.inode);
    let same = entries.iter().filter(move |entry| entry.is(device, inode));
    same.chain(entries.iter().rev().filter(move |entry| !entry.is(device, inode)))
}

/// Finds a file by how it begins.
fn find(entries: &[Entry], mark: &Mark) -> Option<usize> {
    if mark.head_bytes == 0 {
        return None;
    }
    let found = likely(entries, mark).find(|entry| head(entry).is_some_and(|head| mark.begins(&head)))?;
    entries.iter().position(|entry| entry.path == found.path)
}

/// Reads how a file begins; `None` where it cannot be read.
fn head(entry: &Entry) -> Option<Vec<u8>> {
    let mut source = Source::open(&entry.path, entry.compression).ok()?;
    let mut head = vec![0; HEAD_BYTES];
    let length = source.read_fully(&mut head, 0).ok()?;
    head.truncate(length);
    Some(head)
}
