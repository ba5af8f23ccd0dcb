//! `tls_server_config`: certificates, who has to show one, versions.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, NamedGroup, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion, version,
};
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::file::TlsConfig;
use super::{AccessError, Stamp};

/// What speaks TLS as the configuration says; the files that it names are added to `seen`. Relative paths are relative to
/// the configuration's directory.
pub(super) fn acceptor(
    config: TlsConfig,
    directory: &Path,
    seen: &mut Vec<Stamp>,
) -> Result<TlsAcceptor, AccessError> {
    let from = directory.to_owned();
    let wrong = |problem: String| AccessError::Wrong {
        path: from.clone(),
        problem: format!("tls_server_config: {problem}"),
    };
    let mut text = |inline: Option<String>, file: Option<String>, name: &str| match (inline, file) {
        (Some(_), Some(_)) => Err(wrong(format!("give {name} or {name}_file, not both"))),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(file)) => {
            let path = directory.join(file);
            seen.push(Stamp::of(&path));
            std::fs::read(&path).map(Some).map_err(|error| AccessError::Read { path, error })
        }
        (None, None) => Ok(None),
    };
    let missing = |name: &str| wrong(format!("missing one of {name} or {name}_file"));
    let certificates = text(config.cert, config.cert_file, "cert")?.ok_or_else(|| missing("cert"))?;
    let key = text(config.key, config.key_file, "key")?.ok_or_else(|| missing("key"))?;
    let client_ca = text(config.client_ca, config.client_ca_file, "client_ca")?;

    let provider = Arc::new(provider(&config.cipher_suites, &config.curve_preferences).map_err(wrong)?);
    let versions = versions(config.min_version.as_deref(), config.max_version.as_deref()).map_err(wrong)?;
    let verifier =
        verifier(&config.client_auth_type, client_ca.as_deref(), config.client_allowed_sans, &provider)
            .map_err(wrong)?;
    let certificates = chain(&certificates).map_err(|problem| wrong(format!("cert: {problem}")))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong(format!("key: {error}")))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| wrong(error.to_string()))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder
        .with_single_cert(certificates, key)
        .map_err(|error| wrong(format!("the certificate and the key do not go together: {error}")))?;
    server.ignore_client_order = config.prefer_server_cipher_suites.unwrap_or(true);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if chain.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(chain) }
}

fn versions(min: Option<&str>, max: Option<&str>) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let number = |name: Option<&str>, default| match name {
        None => Ok(default),
        Some("TLS12") => Ok(12),
        Some("TLS13") => Ok(13),
        Some(other) => Err(format!("unknown TLS version {other}, there are TLS12 and TLS13")),
    };
    let (min, max) = (number(min, 12)?, number(max, 13)?);
    let known = [(12, &version::TLS12), (13, &version::TLS13)];
    let wanted: Vec<_> =
        known.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, version)| version).collect();
    if wanted.is_empty() { Err("min_version is above max_version".to_owned()) } else { Ok(wanted) }
}

/// The algorithms that are wanted, in their order; TLS 1.3 has its own, which cannot be chosen.
fn provider(suites: &[String], curves: &[String]) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if !suites.is_empty() {
        let (mut wanted, known): (Vec<_>, Vec<_>) =
            provider.cipher_suites.iter().partition(|suite| suite.tls13().is_some());
        for name in suites {
            let named = |suite: &&rustls::SupportedCipherSuite| format!("{:?}", suite.suite()) == *name;
            match known.iter().find(|suite| named(suite)) {
                Some(suite) => wanted.push(*suite),
                None => return Err(format!("unknown cipher suite {name}")),
            }
        }
        provider.cipher_suites = wanted;
    }
    if !curves.is_empty() {
        let group = |name: &String| match name.as_str() {
            "CurveP256" => Ok(NamedGroup::secp256r1),
            "CurveP384" => Ok(NamedGroup::secp384r1),
            "X25519" => Ok(NamedGroup::X25519),
            _ => Err(format!("unknown curve {name}, there are CurveP256, CurveP384 and X25519")),
        };
        let wanted = curves.iter().map(group).collect::<Result<Vec<_>, _>>()?;
        let known = std::mem::take(&mut provider.kx_groups);
        provider.kx_groups = wanted
            .iter()
            .filter_map(|name| known.iter().find(|group| group.name() == *name))
            .copied()
            .collect();
    }
    Ok(provider)
}

type Verifier = Arc<dyn ClientCertVerifier>;

/// Go's client authentication types.
fn verifier(
    kind: &str,
    client_ca: Option<&[u8]>,
    allowed_sans: Vec<String>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Verifier>, String> {
    let signed = |mandatory| -> Result<Verifier, String> {
        let pem = client_ca.ok_or_else(|| format!("{kind} needs client_ca or client_ca_file"))?;
        let mut roots = RootCertStore::empty();
        for certificate in chain(pem).map_err(|problem| format!("client_ca: {problem}"))? {
            roots.add(certificate).map_err(|error| format!("client_ca: {error}"))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
        builder.build().map(|verifier| verifier as Verifier).map_err(|error| format!("client_ca: {error}"))
    };
    let any = |mandatory| -> Verifier { Arc::new(AnyCertificate { mandatory, provider: provider.clone() }) };
    let verifier = match kind {
        "" | "NoClientCert" if client_ca.is_some() => {
            return Err("client_ca is given, and no client_auth_type that needs it".to_owned());
        }
        "" | "NoClientCert" => None,
        "RequestClientCert" => Some(any(false)),
        "RequireAnyClientCert" | "RequireClientCert" => Some(any(true)),
        "VerifyClientCertIfGiven" => Some(signed(false)?),
        "RequireAndVerifyClientCert" => Some(signed(true)?),
        other => return Err(format!("invalid client_auth_type {other:?}")),
    };
    match verifier {
        Some(inner) if !allowed_sans.is_empty() => {
            Ok(Some(Arc::new(AllowedNames { inner, allowed: allowed_sans })))
        }
        None if !allowed_sans.is_empty() => {
            Err("client_allowed_sans needs a client_auth_type that asks for certificates".to_owned())
        }
        verifier => Ok(verifier),
    }
}

/// Asks for a certificate and takes any whose key the client has.
#[derive(Debug)]
struct AnyCertificate {
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes only certificates that carry one of some names.
#[derive(Debug)]
struct AllowedNames {
    inner: Verifier,
    allowed: Vec<String>,
}

impl ClientCertVerifier for AllowedNames {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(certificate, intermediates, now)?;
        if names(certificate).iter().any(|name| self.allowed.contains(name)) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The subject alternative names of a certificate (RFC 5280, section 4.2.1.6).
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names.flatten().filter_map(name_text).collect()
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
            let v6 = <[u8; 16]>::try_from(*bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string());
            v4.or(v6).ok()
        }
        _ => None,
    }
}
