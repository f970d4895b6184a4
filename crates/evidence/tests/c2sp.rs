//! Values that others published, for what we compute ourselves: RFC 6962 trees, keys of signed notes, cosignatures.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{SigningKey, VerifyingKey};
use evidence::{Checkpoint, Frontier, WitnessKey, cosign, inclusion_among, leaf_hash, root_by, verifier_key};

/// The tree that Certificate Transparency's own implementations are tested with: its leaves, and the root at each size.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

#[test]
fn roots_of_certificate_transparency_s_tree() {
    let (mut tree, mut leaves) = (Frontier::default(), Vec::new());
    for (leaf, root) in LEAVES.iter().zip(ROOTS) {
        leaves.push(leaf_hash(&bytes(leaf)));
        tree.push(leaf_hash(&bytes(leaf)));
        assert_eq!(tree.root().as_slice(), bytes(root), "{}", tree.size());
        for (at, leaf) in leaves.iter().enumerate() {
            let path = inclusion_among(&leaves, at);
            assert_eq!(
                root_by(leaf, at as u64, leaves.len() as u64, &path),
                Some(tree.root())
            );
        }
    }
}

/// The key in the documentation of Go's package `note`, of which the specification is the text.
#[test]
fn a_published_key_of_notes() {
    let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let raw = BASE64_STANDARD.decode(text.rsplit_once('+').unwrap().1).unwrap();
    let key = VerifyingKey::try_from(&raw[1..]).unwrap();
    assert_eq!(verifier_key("PeterNeumann", &key), text);
}

/// The key of a witness of the public network.
#[test]
fn a_published_key_of_a_witness() {
    let text = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
    assert_eq!(WitnessKey::parse(text).unwrap().text(), text);
}

/// The example of tlog-cosignature, whose keys it does not give: text, and the form of both signatures.
#[test]
fn the_cosignature_example_s_form() {
    let origin = "example.com/behind-the-sofa";
    let text = format!("{origin}\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n");
    let checkpoint = Checkpoint::parse(text.as_bytes()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.text()), (20_852_163, text));
    let published = "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";
    let key = SigningKey::from_bytes(&[1; 32]);
    let line = cosign("witness.example.com/w1", &key, &checkpoint.text(), 1_679_315_147).unwrap();
    let line = String::from_utf8(line).unwrap();
    let ours = line.strip_prefix("— witness.example.com/w1 ").unwrap().trim_end();
    let (ours, published) = (
        BASE64_STANDARD.decode(ours).unwrap(),
        BASE64_STANDARD.decode(published).unwrap(),
    );
    assert_eq!(ours.len(), published.len());
    assert_eq!(ours[4..12], published[4..12], "the time that the text names");
}
