//! The tiles and checkpoints that we write, read by an independent implementation (`tlog_tiles`).

use std::collections::HashMap;

use evidence::{Checkpoint, Tiling, leaf_hash, verifier_key};
use tlog_tiles::{Hash, TileHashReader, TileReader, tlog};

/// The files of a log, by path.
struct Files(HashMap<String, Vec<u8>>);

impl TileReader for Files {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // The reader speaks the paths of the Go checksum database, which name the height.
        let path = |tile: &tlog_tiles::Tile| tile.path().replacen("tile/8/", "tile/", 1);
        tiles
            .iter()
            .map(|tile| {
                self.0
                    .get(&path(tile))
                    .cloned()
                    .ok_or(tlog_tiles::Error::InvalidTile)
            })
            .collect()
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

#[test]
fn an_independent_reader_proves_every_entry() {
    let entry = |n: u64| format!("entry {n}").into_bytes();
    let (mut tiling, mut full) = (Tiling::default(), Vec::new());
    for n in 0..1000 {
        tiling.push(&entry(n), &mut full).unwrap();
    }
    let files = full
        .into_iter()
        .chain(tiling.partial())
        .map(|tile| (tile.path(), tile.bytes))
        .collect();
    let (files, root) = (Files(files), Hash(tiling.root()));
    let reader = TileHashReader::new(1000, root, &files);
    assert!(tlog::tree_hash(1000, &reader).unwrap() == root);
    for n in [0, 1, 255, 256, 511, 767, 768, 998, 999] {
        let proof = tlog::prove_record(1000, n, &reader).unwrap();
        tlog::check_record(&proof, 1000, root, n, Hash(leaf_hash(&entry(n)))).unwrap();
    }
    let old = tlog::tree_hash(300, &reader).unwrap();
    let proof = tlog::prove_tree(1000, 300, &reader).unwrap();
    tlog::check_tree(&proof, 1000, root, 300, old).unwrap();
}

#[test]
fn an_independent_reader_takes_the_checkpoint() {
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let checkpoint = Checkpoint {
        origin: "pgwitness/test".to_owned(),
        size: 42,
        root: [6; 32],
    };
    let parsed = tlog_tiles::Checkpoint::from_bytes(checkpoint.text().as_bytes()).unwrap();
    assert_eq!(
        (parsed.origin(), parsed.size(), parsed.hash().0),
        ("pgwitness/test", 42, [6; 32])
    );
    assert_eq!(parsed.to_bytes(), checkpoint.text().into_bytes());
    let note = checkpoint.sign(&key).unwrap();
    let verifier =
        signed_note::StandardVerifier::new(&verifier_key("pgwitness/test", &key.verifying_key())).unwrap();
    let list = signed_note::VerifierList::new(vec![Box::new(verifier)]);
    assert_eq!(
        signed_note::Note::from_bytes(&note)
            .unwrap()
            .verify(&list)
            .unwrap()
            .0
            .len(),
        1
    );
}
