//! Certificates and passwords for servers and clients.

use std::fs;
use std::path::Path;
use std::process::Command;

/// `pass word`, by bcrypt.
pub const PASSWORD_HASH: &str = "$2b$04$D7QLfUm1WYcTHoKzDzTZreocDttW.z/mCyNiTCkkrVmp1KvXba.Ge";

/// An authority, a server for localhost and a client, as openssl(1) makes them.
pub fn make_certificates(dir: &Path) {
    let script = r"
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem
        for who in server client; do
            openssl req -newkey rsa:2048 -nodes -subj /CN=$who -keyout $who.key -out $who.csr
            printf 'subjectAltName=DNS:localhost\n' > $who.ext
            openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $who.ext -out $who.pem
        done";
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().expect("sh is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::write(dir.join("password"), "pass word\n").expect("writable");
    fs::write(dir.join("wrong"), "pass\n").expect("writable");
    let config = format!(
        "tls_server_config: {{cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, \
         client_auth_type: RequireAndVerifyClientCert}}\nbasic_auth_users: {{jobs: '{PASSWORD_HASH}'}}\n"
    );
    fs::write(dir.join("web.yml"), config).expect("writable");
}
