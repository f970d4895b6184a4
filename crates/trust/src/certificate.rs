//! What a certificate says, and what a request for one proves.

use std::net::IpAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_cert::{
    Certificate,
    der::{Decode as _, Encode as _, asn1::ObjectIdentifier},
    ext::pkix::{SubjectAltName, name::GeneralName},
    request::CertReq,
};

use crate::TrustError;

/// Longest certificate or request that is looked at: ours take some 600 bytes.
const MAX_BYTES: usize = 16 << 10;

/// Names of a certificate that are looked at.
const MAX_NAMES: usize = 64;

/// Before an agent's id in the URI that names it.
const AGENT_URI: &str = "pgwitness:agent:";

/// What is needed of a certificate whose chain was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Agents that it names: by a URI `pgwitness:agent:ID`, or, as an operator's own authority does it, as a DNS name.
    pub agents: Vec<String>,
    /// Hosts that it names: DNS names, also with `*` for their first label, and addresses.
    pub hosts: Vec<String>,
    /// Seconds since the Unix epoch.
    pub not_before: u64,
    /// Seconds since the Unix epoch.
    pub not_after: u64,
    /// The subject's common name, as far as it has a plain one.
    pub common_name: Option<String>,
}

/// The key of a request that was signed by it: a point of P-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested(pub(crate) Vec<u8>);

/// The URI that names an agent.
pub(crate) fn agent_uri(agent_id: &str) -> String {
    format!("{AGENT_URI}{agent_id}")
}

/// Reads a certificate.
///
/// # Errors
///
/// If it is too long, or none.
pub fn facts(der: &[u8]) -> Result<Facts, TrustError> {
    let wrong = |problem: &dyn std::fmt::Display| TrustError::new("a certificate cannot be read", problem);
    if der.len() > MAX_BYTES {
        return Err(wrong(&"it is too long"));
    }
    let certificate = Certificate::from_der(der).map_err(|problem| wrong(&problem))?;
    let body = &certificate.tbs_certificate;
    let names = body.get::<SubjectAltName>().map_err(|problem| wrong(&problem))?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let agents = names.iter().take(MAX_NAMES).filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str()),
        GeneralName::UniformResourceIdentifier(uri) => uri.as_str().strip_prefix(AGENT_URI),
        _ => None,
    });
    let hosts = names.iter().take(MAX_NAMES).filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(address) => ip(address.as_bytes()).map(|address| address.to_string()),
        _ => None,
    });
    let common_name = body.subject.0.iter().find_map(|part| {
        let part = part.0.iter().find(|part| part.oid == COMMON_NAME)?;
        std::str::from_utf8(part.value.value()).ok().map(str::to_owned)
    });
    Ok(Facts {
        agents: agents.map(str::to_owned).collect(),
        hosts: hosts.collect(),
        not_before: body.validity.not_before.to_unix_duration().as_secs(),
        not_after: body.validity.not_after.to_unix_duration().as_secs(),
        common_name,
    })
}

/// An address, as RFC 5280, section 4.2.1.6 writes it.
fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

/// Checks a request (PKCS #10): that its key is one of P-256, and signed it. Whom a certificate names is not the request's to say.
///
/// # Errors
///
/// If it is no request, of another kind of key, or its signature does not hold.
pub fn requested(der: &[u8]) -> Result<Requested, TrustError> {
    let wrong = |problem: &dyn std::fmt::Display| TrustError::new("the request for a certificate", problem);
    if der.len() > MAX_BYTES {
        return Err(wrong(&"it is too long"));
    }
    let request = CertReq::from_der(der).map_err(|problem| wrong(&problem))?;
    let key = &request.info.public_key;
    let curve = key.algorithm.parameters.as_ref();
    let curve = curve.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
    let of_p256 = key.algorithm.oid == EC_KEY && curve == Some(P256);
    if !of_p256 || request.algorithm.oid != ECDSA_SHA256 {
        return Err(wrong(
            &"its key must be one of P-256, its signature ECDSA with SHA-256",
        ));
    }
    let signed = request.info.to_der().map_err(|problem| wrong(&problem))?;
    let point = key.subject_public_key.raw_bytes();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(&signed, request.signature.raw_bytes())
        .map_err(|_| wrong(&"its signature does not hold"))?;
    Ok(Requested(point.to_vec()))
}

/// Certificates as a PEM file has them.
#[must_use]
pub fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text += "-----BEGIN CERTIFICATE-----\n";
        let encoded = BASE64_STANDARD.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            text += line;
            text.push('\n');
            rest = more;
        }
        text += "-----END CERTIFICATE-----\n";
    }
    text
}

/// Reads such a file.
///
/// # Errors
///
/// If there is none in it, or one that is damaged.
pub fn from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.map_err(|problem| TrustError::new("certificates in PEM cannot be read", problem))?;
    if certificates.is_empty() {
        return Err(TrustError("there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// RFC 5280 and RFC 5480.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, request};

    #[test]
    fn a_request_is_good_for_its_own_key_alone() {
        let (key, csr) = request().expect("made");
        let requested = requested(&csr).expect("holds");
        assert!(!key.is_empty() && requested.0.len() == 65);
        for at in 0..csr.len() {
            let mut damaged = csr.clone();
            damaged[at] ^= 1;
            // The encoding of the signature has forms that say the same; the key never is another.
            if let Ok(other) = super::requested(&damaged) {
                assert_eq!(other, requested, "byte {at}");
            }
            assert!(super::requested(&csr[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn what_was_issued_is_read_back() {
        let authority = Authority::create("test", 1_800_000_000).expect("made");
        let (_, csr) = request().expect("made");
        let key = requested(&csr).expect("holds");
        let issued = authority
            .agent("db1.example", &key, 1_800_000_000, 3600)
            .expect("issued");
        let found = facts(&issued).expect("read");
        assert_eq!(found.agents, ["db1.example"]);
        assert_eq!(found.not_after, 1_800_003_600);
        assert!(found.not_before < 1_800_000_000);
        for at in 0..issued.len() {
            let _ = facts(&issued[..at]);
        }
        let both = [issued.clone(), authority.certificate().clone()];
        assert_eq!(from_pem(&to_pem(&both)).expect("read"), both);
        assert!(from_pem("nothing").is_err());
    }
}
