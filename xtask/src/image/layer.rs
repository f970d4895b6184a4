//! Files to the bytes of a layer: sorted, of root, with one time, so that only what is in them makes a difference.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::{contents::Contents, layout::digest};

/// A layer as it is stored.
pub(super) struct Layer {
    /// SHA-256 of the archive before it was compressed, by which the image's configuration knows it.
    pub(super) diff_id: String,
    pub(super) bytes: Vec<u8>,
}

impl Layer {
    /// Makes it; everything in it is of `time`.
    pub(super) fn of(contents: &Contents, time: u64) -> anyhow::Result<Self> {
        let mut archive = Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        for path in contents.files.keys() {
            let above = path
                .ancestors()
                .skip(1)
                .filter(|folder| folder.parent().is_some());
            folders.extend(above.map(Path::to_path_buf));
        }
        for folder in folders {
            let mut header = header(EntryType::Directory, 0o755, time);
            append(&mut archive, &mut header, &folder, &[])?;
        }
        for (path, file) in &contents.files {
            let mode = if file.executable { 0o755 } else { 0o644 };
            append(
                &mut archive,
                &mut header(EntryType::Regular, mode, time),
                path,
                &file.bytes,
            )?;
        }
        let plain = archive.into_inner()?;
        // No name and no time of its own, and 255 for the system: RFC 1952 has "unknown".
        let mut packer = GzBuilder::new()
            .mtime(0)
            .operating_system(255)
            .write(Vec::new(), Compression::default());
        packer.write_all(&plain)?;
        Ok(Self {
            diff_id: digest(&plain),
            bytes: packer.finish()?,
        })
    }
}

fn header(kind: EntryType, mode: u32, time: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header
}

fn append(
    archive: &mut Builder<Vec<u8>>,
    header: &mut Header,
    path: &Path,
    bytes: &[u8],
) -> anyhow::Result<()> {
    header.set_size(u64::try_from(bytes.len())?);
    let inside: PathBuf = path.strip_prefix("/")?.to_path_buf();
    archive.append_data(header, inside, bytes)?;
    Ok(())
}

/// Packs the files of a folder, in the order of their names.
pub(super) fn archive(files: &[(String, Vec<u8>)], time: u64) -> anyhow::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (path, bytes) in files {
        let path = Path::new("/").join(path);
        append(
            &mut archive,
            &mut header(EntryType::Regular, 0o644, time),
            &path,
            bytes,
        )?;
    }
    Ok(archive.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::contents::File;
    use super::*;

    fn of(paths: &[&str]) -> Contents {
        let file = |path: &&str| {
            let bytes = path.as_bytes().to_vec();
            (
                PathBuf::from(path),
                File {
                    bytes,
                    executable: path.contains("bin"),
                },
            )
        };
        Contents {
            architecture: "amd64",
            files: paths.iter().map(file).collect::<BTreeMap<_, _>>(),
            packages: BTreeSet::new(),
            strangers: Vec::new(),
        }
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let one = Layer::of(&of(&["/usr/bin/x", "/etc/passwd"]), 7).expect("made");
        let other = Layer::of(&of(&["/etc/passwd", "/usr/bin/x"]), 7).expect("made");
        assert_eq!(one.bytes, other.bytes);
        let later = Layer::of(&of(&["/usr/bin/x", "/etc/passwd"]), 8).expect("made");
        assert_ne!(one.bytes, later.bytes);
    }

    #[test]
    fn everything_is_roots_and_folders_come_first() {
        let layer = Layer::of(&of(&["/usr/bin/x", "/etc/passwd"]), 7).expect("made");
        let plain = flate2::read::GzDecoder::new(layer.bytes.as_slice());
        let mut archive = tar::Archive::new(plain);
        let mut seen = Vec::new();
        for entry in archive.entries().expect("an archive") {
            let entry = entry.expect("an entry");
            let header = entry.header();
            assert_eq!(
                (header.uid().ok(), header.gid().ok(), header.mtime().ok()),
                (Some(0), Some(0), Some(7))
            );
            let path = entry.path().expect("a path").display().to_string();
            seen.push((path, header.mode().expect("a mode")));
        }
        let seen: Vec<_> = seen.iter().map(|(path, mode)| (path.as_str(), *mode)).collect();
        assert_eq!(
            seen,
            [
                ("etc", 0o755),
                ("usr", 0o755),
                ("usr/bin", 0o755),
                ("etc/passwd", 0o644),
                ("usr/bin/x", 0o755)
            ]
        );
    }
}
