//! The files of certificates: read, hashed and understood. A set of files is used whole or not at all.

use std::{
    error::Error,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use crate::config::{Certificate, Need, Tls as Config};

/// Bytes of one file; a chain has a few thousand, a list of authorities some hundred thousand.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Names of one certificate; authorities sign some hundred at most.
const NAMES_MAX: usize = 10_000;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not PEM: {source}", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} holds something that is no certificate: {source}", path.display())]
    NotACertificate { path: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error("{} and {} cannot be used together: {source}", chain.display(), key.display())]
    Unusable { chain: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("{} is no OCSP answer in DER", path.display())]
    NotOcsp { path: PathBuf },
    #[error("{} cannot be used to verify clients: {source}", path.display())]
    Authority { path: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error("the crypto library: {source}")]
    Crypto { source: rustls::Error },
}

/// When a certificate ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expiry {
    pub chain: PathBuf,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// The bytes of all files of a listener, at one time.
pub(super) struct Contents {
    files: Vec<(PathBuf, io::Result<Vec<u8>>)>,
}

/// What tells contents apart.
pub(super) type Hash = [u8; 32];

impl Contents {
    pub(super) fn read(config: &Config) -> Self {
        let certificates = config.certificates.iter();
        let mut paths: Vec<&Path> = certificates.flat_map(files_of).collect();
        paths.extend(config.clients.iter().map(|clients| clients.authority.as_path()));
        Self { files: paths.into_iter().map(|path| (path.to_owned(), read(path))).collect() }
    }

    pub(super) fn hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        for (_, bytes) in &self.files {
            match bytes {
                Ok(bytes) => {
                    hasher.update(&[1]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
                }
                Err(error) => {
                    hasher.update(&[0]).update(error.kind().to_string().as_bytes());
                }
            }
        }
        *hasher.finalize().as_bytes()
    }

    fn of(&self, path: &Path) -> Result<&[u8], TlsError> {
        let found = self.files.iter().find(|(other, _)| other == path);
        match found.map(|(_, bytes)| bytes) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(unreadable(path, error)),
            None => Err(unreadable(path, &io::ErrorKind::NotFound.into())),
        }
    }

    /// A file that need not be there.
    fn of_optional(&self, path: &Path) -> Result<Option<&[u8]>, TlsError> {
        match self.of(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(TlsError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn files_of(certificate: &Certificate) -> impl Iterator<Item = &Path> {
    let Certificate { chain, key, ocsp } = certificate;
    [chain, key].into_iter().chain(ocsp).map(PathBuf::as_path)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// An error of I/O cannot be copied; what it says can.
fn unreadable(path: &Path, error: &io::Error) -> TlsError {
    let source = match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    };
    TlsError::Unreadable { path: path.to_owned(), source }
}

/// A certificate that can be shown, and for whom.
#[derive(Debug)]
pub(super) struct Shown {
    pub key: Arc<CertifiedKey>,
    /// Lower-case; `*.` in front is one label.
    pub names: Vec<String>,
}

/// A sound set of files.
pub(super) struct Loaded {
    pub certificates: Vec<Shown>,
    pub clients: Option<(PathBuf, RootCertStore, Need)>,
}

impl Loaded {
    pub(super) fn from(
        config: &Config,
        contents: &Contents,
        provider: &CryptoProvider,
    ) -> Result<(Self, Vec<Expiry>), TlsError> {
        let (mut certificates, mut expiries) = (Vec::new(), Vec::new());
        for certificate in &config.certificates {
            let (shown, expiry) = shown(certificate, contents, provider)?;
            certificates.push(shown);
            expiries.push(expiry);
        }
        let clients = match &config.clients {
            None => None,
            Some(clients) => {
                let path = clients.authority.clone();
                let mut roots = RootCertStore::empty();
                for authority in chain(contents, &path)? {
                    let added = roots.add(authority);
                    added.map_err(|source| TlsError::Authority {
                        path: path.clone(),
                        source: Box::new(source),
                    })?;
                }
                Some((path, roots, clients.need))
            }
        };
        Ok((Self { certificates, clients }, expiries))
    }
}

fn shown(
    files: &Certificate,
    contents: &Contents,
    provider: &CryptoProvider,
) -> Result<(Shown, Expiry), TlsError> {
    let chain = chain(contents, &files.chain)?;
    let own = chain.first().ok_or_else(|| TlsError::NoCertificate { path: files.chain.clone() })?;
    let (names, not_after) = read_certificate(own, &files.chain)?;
    let key = PrivateKeyDer::from_pem_slice(contents.of(&files.key)?)
        .map_err(|source| TlsError::Pem { path: files.key.clone(), source })?;
    let mut key = CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Unusable {
        chain: files.chain.clone(),
        key: files.key.clone(),
        source,
    })?;
    if let Some(path) = &files.ocsp
        && let Some(answer) = contents.of_optional(path)?
    {
        if !is_one_der_sequence(answer) {
            return Err(TlsError::NotOcsp { path: path.clone() });
        }
        key.ocsp = Some(answer.to_vec());
    }
    Ok((Shown { key: Arc::new(key), names }, Expiry { chain: files.chain.clone(), not_after }))
}

fn chain(contents: &Contents, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem { path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents.of(path)?).collect();
    let found = found.map_err(pem)?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

/// The names that a certificate is for, and when it ends.
fn read_certificate(der: &CertificateDer<'_>, path: &Path) -> Result<(Vec<String>, i64), TlsError> {
    let bad =
        |source: Box<dyn Error + Send + Sync>| TlsError::NotACertificate { path: path.to_owned(), source };
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der)
        .map_err(|error| bad(error.to_string().into()))?;
    let named = certificate.subject_alternative_name().map_err(|error| bad(Box::new(error)))?;
    let named = named.iter().flat_map(|extension| extension.value.general_names.iter());
    let names = named.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok((names.take(NAMES_MAX).collect(), certificate.validity().not_after.timestamp()))
}

/// Whether the bytes are one SEQUENCE from their first to their last: an OCSP answer is (RFC 6960 section 4.2.1), PEM
/// and a page of an error are not.
fn is_one_der_sequence(bytes: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = bytes else { return false };
    match *first {
        length @ 0..=0x7F => usize::from(length) == rest.len(),
        long @ 0x81..=0x84 => {
            let digits = usize::from(long & 0x7F);
            let Some((length, rest)) = rest.split_at_checked(digits) else { return false };
            length.iter().fold(0, |sum: usize, digit| sum << 8 | usize::from(*digit)) == rest.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_sequence_is_taken_for_an_ocsp_answer() {
        let long = [&[0x30, 0x82, 0x01, 0x00][..], &[0; 256]].concat();
        for sound in [&[0x30, 0][..], &[0x30, 1, 5], &long] {
            assert!(is_one_der_sequence(sound), "{sound:?}");
        }
        let page = b"<html>no such answer</html>";
        let cut = &long[..100];
        for other in [&b""[..], page, &[0x30], &[0x30, 2, 5], &[0x30, 0x80, 5], &[0x30, 0x85, 1], cut] {
            assert!(!is_one_der_sequence(other), "{other:?}");
        }
    }
}
