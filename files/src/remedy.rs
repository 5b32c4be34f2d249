//! What helps against a refusal of the system.
//!
//! In: the error of opening, reading or writing a file. Out: a hint in words. Must not: know what the file is for; who
//! does adds to the hint.

use std::io;

use crate::Refusal;

/// What to do about a file that could not be opened, read or written; `None` where nothing general helps.
pub fn remedy(error: &io::Error) -> Option<&'static str> {
    match Refusal::of(error) {
        Some(Refusal::Link) => return Some("put the file or folder itself in the place of the link"),
        Some(Refusal::Kind(_)) => return Some("name a regular file, or remove what stands in its place"),
        Some(Refusal::Large(_)) => return Some("is it the file that was meant?"),
        None => {}
    }
    Some(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "free some space, or name a place on another disk"
        }
        io::ErrorKind::PermissionDenied => "check whose it is and what its mode allows, or name another",
        io::ErrorKind::ReadOnlyFilesystem => "name a place that you may write to",
        io::ErrorKind::NotFound => "check the path: this file, or a folder on the way to it, is not there",
        io::ErrorKind::NotADirectory => "a part of the path is a file; name another",
        io::ErrorKind::IsADirectory => "name a file, not a folder",
        _ => return None,
    })
}
