//! The collector's own small certificate authority: it issues for collectors and agents, and for nothing else.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use time::OffsetDateTime;

use crate::{
    COLLECTOR_NAME, Digest, Identity, TrustError,
    certificate::{Requested, agent_uri},
    digest, facts, from_pem,
};

/// How long an authority is good for: ten years. It is replaced by `ca rotate` long before.
const LIFETIME_S: u64 = 10 * 365 * 86_400;

/// Certificates begin this long before they are made, but not longer than they last: clocks differ.
const LEEWAY_S: u64 = 300;

/// An authority with its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after: u64,
}

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A new TLS key, in PEM, and the request for its certificate, in DER.
///
/// # Errors
///
/// If there is no randomness.
pub fn request() -> Result<(String, Vec<u8>), TrustError> {
    let key = new_key()?;
    let made = CertificateParams::default().serialize_request(&key);
    let made = made.map_err(|problem| TrustError::new("a request cannot be made", problem))?;
    Ok((key.serialize_pem(), made.der().to_vec()))
}

impl Authority {
    /// A new one for the log of this name. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// If there is no randomness.
    pub fn create(log: &str, now: u64) -> Result<Self, TrustError> {
        let key = new_key()?;
        // Authorities of one log follow each other: each has a name of its own, by which the other side says whom it trusts.
        let short: String = digest(key.public_key_raw())
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let params = params(&format!("pgwitness {log} {short}"), now, LIFETIME_S)?;
        let certificate = params.self_signed(&key);
        let certificate =
            certificate.map_err(|problem| TrustError::new("an authority cannot be made", problem))?;
        Ok(Self {
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
            not_after: now.saturating_add(LIFETIME_S),
        })
    }

    /// From its two files.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read, or they do not belong together.
    pub fn load(certificate: &str, key: &str) -> Result<Self, TrustError> {
        let key = KeyPair::from_pem(key)
            .map_err(|problem| TrustError::new("the authority's key cannot be read", problem))?;
        let [certificate] = <[_; 1]>::try_from(from_pem(certificate)?)
            .map_err(|_| TrustError("there must be one certificate".to_owned()))?;
        let facts = facts(&certificate)?;
        let name = facts.common_name.unwrap_or_default();
        let of_key = {
            use x509_cert::der::Decode as _;
            x509_cert::Certificate::from_der(&certificate).is_ok_and(|read| {
                read.tbs_certificate
                    .subject_public_key_info
                    .subject_public_key
                    .raw_bytes()
                    == key.public_key_raw()
            })
        };
        if !of_key {
            return Err(TrustError(
                "the authority's key is not its certificate's".to_owned(),
            ));
        }
        Ok(Self {
            certificate,
            issuer: Issuer::new(params(&name, facts.not_before, LIFETIME_S)?, key),
            not_after: facts.not_after,
        })
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its key, in PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What tokens name it by.
    #[must_use]
    pub fn pin(&self) -> Digest {
        digest(&self.certificate)
    }

    /// A certificate for an agent: good for connecting, and not for being connected to.
    ///
    /// # Errors
    ///
    /// If the id cannot stand in one.
    pub fn agent(
        &self,
        agent_id: &str,
        key: &Requested,
        now: u64,
        lifetime_s: u64,
    ) -> Result<CertificateDer<'static>, TrustError> {
        let uri = agent_uri(agent_id).try_into();
        let uri = uri.map_err(|problem| TrustError::new("the agent's id", problem))?;
        let mut params = self.leaf(agent_id, now, lifetime_s)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, key)
    }

    /// What the collector shows itself by, with a key of its own.
    ///
    /// # Errors
    ///
    /// If there is no randomness.
    pub fn collector(&self, now: u64, lifetime_s: u64) -> Result<Identity, TrustError> {
        let key = new_key()?;
        let name = COLLECTOR_NAME.try_into();
        let name = name.map_err(|problem| TrustError::new("the collector's name", problem))?;
        let mut params = self.leaf(COLLECTOR_NAME, now, lifetime_s)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = self.sign(&params, &key)?;
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes());
        Ok(Identity {
            certificates: vec![certificate, self.certificate.clone()],
            key: key.map_err(|problem| TrustError::new("a key cannot be used", problem))?,
        })
    }

    fn leaf(&self, name: &str, now: u64, lifetime_s: u64) -> Result<CertificateParams, TrustError> {
        let lifetime_s = lifetime_s.min(self.not_after.saturating_sub(now));
        let mut params = params(name, now, lifetime_s)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, TrustError> {
        let signed = params.signed_by(key, &self.issuer);
        let signed = signed.map_err(|problem| TrustError::new("a certificate cannot be issued", problem))?;
        Ok(signed.der().clone())
    }
}

fn new_key() -> Result<KeyPair, TrustError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|problem| TrustError::new("a key cannot be made", problem))
}

/// What is the same for all; as an authority, which `leaf` takes back.
fn params(name: &str, now: u64, lifetime_s: u64) -> Result<CertificateParams, TrustError> {
    let at = |seconds: u64| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(seconds)
            .map_err(|problem| TrustError::new("the clock is far off", problem))
    };
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    let mut serial: [u8; 16] = rand::random();
    // Positive, as RFC 5280 wants it.
    serial[0] &= 0x7f;
    let mut params = CertificateParams::default();
    params.not_before = at(now.saturating_sub(LEEWAY_S.min(lifetime_s)))?;
    params.not_after = at(now.saturating_add(lifetime_s))?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = distinguished_name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}
