//! Files and the disk below them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use conductor_store::Room;
use rustix::fs::statfs;
use rustix::process::{Resource, getrlimit};

use super::super::amounts::{count, size};
use super::Finding;
use crate::config::settings::Settings;

/// With less room a store cannot go on for long: its log alone may take as much.
const ROOM_BAD_BYTES: u64 = 64 * 1024 * 1024;
const ROOM_ODD_BYTES: u64 = 256 * 1024 * 1024;
const FILES_ODD: u64 = 1_000;
/// A disk that takes so long for one write lets few notifications in.
const SLOW: Duration = Duration::from_millis(100);
/// With fewer descriptors a server serves few clients.
const DESCRIPTORS_ODD: u64 = 4_096;

/// What the numbers of `statfs` mean that say something about a store's safety.
const NETWORK: [u64; 6] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x00c3_6400];
const MEMORY: u64 = 0x0102_1994;
const OVERLAY: u64 = 0x794c_7630;

pub(super) fn look(settings: &Settings, working_dir: &Path) -> Vec<Finding> {
    let data = &settings.data_dir;
    let mut findings = Vec::new();
    let secret = [working_dir.join(".env"), data.join(".env")];
    let is_same =
        secret[0].canonicalize().is_ok_and(|first| secret[1].canonicalize().is_ok_and(|second| first == second));
    findings.extend(secret.iter().skip(usize::from(is_same)).filter_map(|path| mode(path, "keys")));
    for name in ["conductor.db", "conductor.db-wal"] {
        findings.extend(mode(&data.join(name), "messages").filter(|finding| finding.help.is_some()));
    }
    if !data.exists() {
        findings.push(Finding::good(format!("{} is not there yet; the first start makes it", data.display())));
    } else {
        findings.push(writing(data));
        findings.extend(kind_of_disk(data));
        findings.push(room(data));
    }
    findings.push(descriptors());
    findings
}

/// Whether others can read a file that holds what is not for them; none where it is not there.
fn mode(path: &Path, what: &str) -> Option<Finding> {
    let mode = path.metadata().ok()?.mode() & 0o777;
    Some(match mode & 0o077 {
        0 => Finding::good(format!("{} is readable by its owner alone", path.display())),
        _ => Finding::odd(
            format!("{} holds {what}, and others may read or write it (mode {mode:03o})", path.display()),
            format!("chmod 600 {}", path.display()),
        ),
    })
}

/// Writes a small file as the store does, and removes it.
fn writing(data: &Path) -> Finding {
    let path = data.join(format!(".conductor-doctor-{}", std::process::id()));
    let began = Instant::now();
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&[0; 4_096])?;
        file.sync_all()
    };
    let written = write();
    let took = began.elapsed();
    let removed = std::fs::remove_file(&path);
    let shown = data.display();
    match written {
        Err(error) => Finding::bad(
            format!("{shown} cannot be written: {error}"),
            "the server's user has to own the folder (`chown`); run this command as that user",
        ),
        Ok(()) if removed.is_err() => Finding::odd(
            format!("{} could be made, but not removed", path.display()),
            "remove it, and see to it that the folder belongs to the server's user",
        ),
        Ok(()) if took > SLOW => Finding::odd(
            format!("{shown} can be written, but one write took {} ms", took.as_millis()),
            "each acceptance waits for one such write: a faster disk takes more notifications",
        ),
        Ok(()) => Finding::good(format!("{shown} can be written; one write takes {:.1} ms", took.as_secs_f64() * 1e3)),
    }
}

/// Whether the disk is of a kind on which a store is not safe.
fn kind_of_disk(data: &Path) -> Option<Finding> {
    let kind = statfs(data).ok()?.f_type as u64 & 0xffff_ffff;
    let shown = data.display();
    match kind {
        kind if NETWORK.contains(&kind) => Some(Finding::bad(
            format!("{shown} lies on a network share, which keeps neither the order of writes nor locks"),
            "move the data folder to a local disk; backups may go to the share",
        )),
        MEMORY => Some(Finding::odd(
            format!("{shown} lies in memory: all is lost when the machine stops"),
            "move the data folder to a disk",
        )),
        OVERLAY => Some(Finding::odd(
            format!("{shown} lies in a container's own layer: all is lost when the container is removed"),
            "mount a volume there",
        )),
        _ => None,
    }
}

fn room(data: &Path) -> Finding {
    let shown = data.display();
    let room = match Room::in_directory(data) {
        Ok(room) => room,
        Err(error) => return Finding::bad(format!("{shown}: its disk cannot be asked: {error}"), "look at the disk"),
    };
    let free = size(room.bytes);
    const HELP: &str = "make room: with a full disk nothing new is accepted";
    match room {
        Room { files: Some(0), .. } => Finding::bad(format!("{shown}: its disk takes no more files"), HELP),
        Room { bytes, .. } if bytes < ROOM_BAD_BYTES => Finding::bad(format!("{shown}: only {free} are free"), HELP),
        Room { files: Some(files), .. } if files < FILES_ODD => {
            Finding::odd(format!("{shown}: its disk takes only {}", count(files, "more file", "more files")), HELP)
        }
        Room { bytes, .. } if bytes < ROOM_ODD_BYTES => Finding::odd(format!("{shown}: only {free} are free"), HELP),
        _ => Finding::good(format!("{shown}: {free} are free")),
    }
}

fn descriptors() -> Finding {
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < DESCRIPTORS_ODD => Finding::odd(
            format!("a process of this user may open only {}", count(most, "file", "files")),
            "clients and attempts share them: raise the limit, with systemd by LimitNOFILE=65536, with Docker by --ulimit \
             nofile=65536",
        ),
        Some(most) => Finding::good(format!("a process of this user may open {}", count(most, "file", "files"))),
        None => Finding::good("a process of this user may open any number of files"),
    }
}
