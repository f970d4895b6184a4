//! What TLS is set to: version 1.3 alone, so that there is nothing to be talked down to, and no resumption, so that each
//! connection shows a certificate that is good now.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{Digest, TrustError, digest};

/// The name of every collector that is its own authority. That authority is what tells it from others, so that it can be
/// reached under any address.
pub const COLLECTOR_NAME: &str = "collector.pgwitness";

/// HTTP/2 alone, as gRPC wants it.
const PROTOCOL: &[u8] = b"h2";

/// HTTP/1.1 alone, which is what people's questions are asked over (RFC 7301).
const READERS_PROTOCOL: &[u8] = b"http/1.1";

/// A certificate with those behind it, and its key.
#[derive(Debug)]
pub struct Identity {
    /// The own one first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Of the first.
    pub key: PrivateKeyDer<'static>,
}

/// What a collector can show itself by.
#[derive(Debug)]
pub struct Presented {
    /// The certificate and its key.
    pub identity: Identity,
    /// Whose certificate it is, where several follow each other.
    pub authority: Option<CertificateDer<'static>>,
}

/// For a collector: it shows the certificate whose authority the agent says that it trusts, the first if none. Agents'
/// certificates must be of one of the authorities; one that shows none is let in to enrol, and for nothing else.
///
/// # Errors
///
/// If a certificate or key cannot be used.
pub fn server(
    presented: Vec<Presented>,
    authorities: &[CertificateDer<'static>],
) -> Result<ServerConfig, TrustError> {
    let provider = provider();
    let agents =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|problem| TrustError::new("the authorities of agents", problem))?;
    let choices = presented.into_iter().map(|presented| {
        let Identity { certificates, key } = presented.identity;
        let names = match presented.authority {
            Some(authority) => roots(&[authority])?.subjects(),
            None => Vec::new(),
        };
        let key = CertifiedKey::from_der(certificates, key, &provider)
            .map_err(|problem| TrustError::new("the collector's certificate", problem))?;
        Ok((names, Arc::new(key)))
    });
    let choices = choices.collect::<Result<Vec<_>, TrustError>>()?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|problem| TrustError::new("TLS", problem))?
        .with_client_cert_verifier(agents)
        .with_cert_resolver(Arc::new(Choice(choices)));
    Ok(without_resumption(config, PROTOCOL))
}

/// For a collector that people ask: it shows this certificate, and asks for none. Who they are, their tokens say.
///
/// # Errors
///
/// If the certificate or its key cannot be used.
pub fn readers(identity: Identity) -> Result<ServerConfig, TrustError> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|problem| TrustError::new("TLS", problem))?
        .with_no_client_auth()
        .with_single_cert(identity.certificates, identity.key)
        .map_err(|problem| TrustError::new("the certificate that readers are shown", problem))?;
    Ok(without_resumption(config, READERS_PROTOCOL))
}

fn without_resumption(mut config: ServerConfig, protocol: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// For whoever asks over HTTP: the server's certificate must be of one of these authorities, and name the host that is asked.
/// Authorities that cannot be read are passed over, because a system has many.
///
/// # Errors
///
/// If none of them can be read.
pub fn asking(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    let (read, _) = roots.add_parsable_certificates(authorities);
    if read == 0 {
        return Err(TrustError("there is no authority to trust".to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|problem| TrustError::new("TLS", problem))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![READERS_PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// For an agent that knows whom to trust. Without a certificate of its own it can enrol, and nothing else.
///
/// # Errors
///
/// If a certificate or key cannot be used.
pub fn client(
    authorities: &[CertificateDer<'static>],
    identity: Option<Identity>,
) -> Result<ClientConfig, TrustError> {
    let roots = Arc::new(roots(authorities)?);
    let provider = provider();
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|problem| TrustError::new("the collector's authority", problem))?;
    let verifier = Known {
        chain,
        names: roots.subjects(),
    };
    config(Arc::new(verifier), provider, identity)
}

/// For an agent that enrols: it knows the digest of the authority's certificate, which the collector must show behind its own.
///
/// # Errors
///
/// If TLS cannot be set up.
pub fn pinned(pin: Digest) -> Result<ClientConfig, TrustError> {
    let provider = provider();
    let verifier = Pinned {
        pin,
        algorithms: provider.signature_verification_algorithms,
        provider: Arc::clone(&provider),
    };
    config(Arc::new(verifier), provider, None)
}

fn config(
    verifier: Arc<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
    identity: Option<Identity>,
) -> Result<ClientConfig, TrustError> {
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|problem| TrustError::new("TLS", problem))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(Identity { certificates, key }) => config
            .with_client_auth_cert(certificates, key)
            .map_err(|problem| TrustError::new("this agent's certificate", problem))?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TrustError> {
    let mut store = RootCertStore::empty();
    for authority in authorities {
        let added = store.add(authority.clone());
        added.map_err(|problem| TrustError::new("an authority's certificate", problem))?;
    }
    Ok(store)
}

/// The collector's certificates, by the names of their authorities.
#[derive(Debug)]
struct Choice(Vec<(Vec<DistinguishedName>, Arc<CertifiedKey>)>);

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let trusted = hello.certificate_authorities().unwrap_or_default();
        let is_trusted =
            |name: &DistinguishedName| trusted.iter().any(|trusted| trusted.as_ref() == name.as_ref());
        let choice = self.0.iter().find(|(names, _)| names.iter().any(is_trusted));
        choice.or(self.0.first()).map(|(_, key)| Arc::clone(key))
    }
}

/// The usual checks, and the authorities' names said to the collector, which may have a certificate of each.
#[derive(Debug)]
struct Known {
    chain: Arc<WebPkiServerVerifier>,
    names: Vec<DistinguishedName>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.chain
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 is asked for".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.names)
    }
}

/// Trusts the one authority of this digest.
#[derive(Debug)]
struct Pinned {
    pin: Digest,
    algorithms: WebPkiSupportedAlgorithms,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| digest(certificate) == self.pin);
        let Some(authority) = authority else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let refused = |problem: TrustError| Error::General(problem.0);
        let roots = roots(&[authority.clone().into_owned()]).map_err(refused)?;
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let chain = chain
            .build()
            .map_err(|problem| Error::General(problem.to_string()))?;
        chain.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 is asked for".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
