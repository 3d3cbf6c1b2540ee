//! The network, and what is one without looking like one.

use crate::{Finding, Ground};

pub(crate) async fn connects_to_a_server_of_the_host(ground: &Ground) -> Finding {
    let program = "
for address in E['ADDRESSES'].split():
    tries(socket.create_connection, (address, int(E['PORT'])), 2)
    tries(socket.create_connection, ('::ffff:' + address, int(E['PORT'])), 2)
";
    ground.inside(program).await
}

/// A secret as a name to be resolved, to whoever might forward the question.
pub(crate) async fn sends_a_name_to_a_resolver(ground: &Ground) -> Finding {
    let program = "
question = bytes.fromhex('0001010000010000000000000673656372657407657861 6d706c6503636f6d0000010001'.replace(' ', ''))
servers = [(address, int(E['UDP_PORT'])) for address in E['ADDRESSES'].split()]
for line in tries(lambda: open('/etc/resolv.conf').read().splitlines()) or []:
    if line.startswith('nameserver'): servers.append((line.split()[1], 53))
for server in servers:
    def send():
        family = socket.AF_INET6 if ':' in server[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as s: return s.sendto(question, server)
    if tries(send) and server[1] == 53: escaped('a question left for', server[0])
";
    ground.inside(program).await
}

pub(crate) async fn meets_an_abstract_socket_of_the_host(ground: &Ground) -> Finding {
    ground.inside("tries(socket.socket(socket.AF_UNIX).connect, '\\0' + E['ABSTRACT'])").await
}

pub(crate) async fn meets_a_socket_file_of_the_host(ground: &Ground) -> Finding {
    let program = "
tries(socket.socket(socket.AF_UNIX).connect, E['SOCKET'])
for pid in filter(str.isdigit, os.listdir('/proc')):
    tries(socket.socket(socket.AF_UNIX).connect, '/proc/' + pid + '/root' + E['SOCKET'])
";
    ground.inside(program).await
}

/// By every protocol, with every spelling that some parser took for something else.
pub(crate) async fn asks_the_way_out_for_a_host_that_it_may_not_have(ground: &Ground) -> Finding {
    let program = "
port = E['PORT']
def ask(*parts):
    s = socket.create_connection(('127.0.0.1', 3128), 5)
    s.settimeout(3)
    for part in parts:
        s.sendall(part)
        try: s.recv(4096)
        except socket.timeout: pass
    s.close()
hosts = ['127.0.0.1', 'localhost', '127.0.0.1\\0.example.com', '2130706433', '0x7f.1', '127.1', '0.0.0.0',
         '[::ffff:127.0.0.1]', '[::1]', 'example.com@127.0.0.1', '127.0.0.1#example.com', '127.0.0.1%20example.com',
         'localhost.', 'LOCALHOST', '127.0.0.1\\t', '\\uff11\\uff12\\uff17.0.0.1']
for address in E['ADDRESSES'].split(): hosts.append(address)
for host in hosts:
    raw = host.encode()
    tries(ask, b'CONNECT %b:%b HTTP/1.1\\r\\nHost: example.com\\r\\n\\r\\n' % (raw, port.encode()))
    tries(ask, b'GET http://%b:%b/ HTTP/1.1\\r\\nHost: example.com\\r\\n\\r\\n' % (raw, port.encode()))
    tries(ask, b'\\x05\\x01\\x00', b'\\x05\\x01\\x00\\x03' + bytes([len(raw)]) + raw + struct.pack('>H', int(port)))
tries(ask, b'\\x05\\x01\\x00', b'\\x05\\x01\\x00\\x01' + socket.inet_aton('127.0.0.1') + struct.pack('>H', int(port)))
tries(ask, b'CONNECT example.com:443 HTTP/1.1\\r\\nHost: 127.0.0.1:%b\\r\\n\\r\\nCONNECT 127.0.0.1:%b HTTP/1.1\\r\\n\\r\\n' % (port.encode(), port.encode()))
";
    ground.inside(program).await
}
