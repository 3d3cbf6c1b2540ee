//! Files, devices and descriptors.

use crate::{Finding, Ground};

pub(crate) async fn reads_a_file_of_the_host(ground: &Ground) -> Finding {
    ground
        .inside("data = tries(lambda: open(E['SECRET_FILE']).read())\nif data: escaped('it says', data)")
        .await
}

pub(crate) async fn writes_a_file_of_the_host(ground: &Ground) -> Finding {
    ground
        .inside("tries(lambda: open(E['OUTSIDE'] + '/planted', 'w').write('x'))\ntries(os.remove, E['SECRET_FILE'])")
        .await
}

pub(crate) async fn looks_through_proc_into_another_root(ground: &Ground) -> Finding {
    let program = "
for pid in filter(str.isdigit, os.listdir('/proc')):
    for way in ('root', 'cwd/../../../../../../../..', 'fd/0/../..', 'task/' + pid + '/root'):
        data = tries(lambda: open('/proc/' + pid + '/' + way + E['SECRET_FILE']).read())
        if data: escaped('by', pid, way)
";
    ground.inside(program).await
}

/// The 'shocker': a file's number instead of its name. The root of most file systems is number 2.
pub(crate) async fn opens_a_file_by_its_number(ground: &Ground) -> Finding {
    let program = "
x86()
class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('id', ctypes.c_ubyte * 128)]
for start in ('.', '/etc/hosts', '/tmp'):
    fd = tries(os.open, start, os.O_RDONLY)
    if fd is None: continue
    handle = Handle(bytes=8, type=1)
    handle.id[0] = 2
    root, error = call(304, fd, ctypes.byref(handle), os.O_RDONLY | os.O_DIRECTORY)
    if root >= 0: escaped('the root of the file system below', start, tries(os.listdir, root))
    if error == errno.EOPNOTSUPP: not_here('this file system has no numbers')
";
    ground.inside(program).await
}

pub(crate) async fn opens_the_descriptors_of_its_keeper(ground: &Ground) -> Finding {
    let program = "
for pid in (os.getppid(), 1):
    if pid == os.getpid(): continue
    for fd in tries(os.listdir, '/proc/%d/fd' % pid) or []:
        escaped('process', pid, 'has', fd, tries(os.readlink, '/proc/%d/fd/%s' % (pid, fd)))
";
    ground.inside(program).await
}

/// Who can open the keeper's program may be able to replace it.
pub(crate) async fn reads_the_program_that_keeps_it(ground: &Ground) -> Finding {
    let program = "
for pid in (os.getppid(), 1):
    fd = tries(os.open, '/proc/%d/exe' % pid, os.O_RDONLY)
    if fd is not None: escaped('the program of', pid, os.readlink('/proc/self/fd/%d' % fd))
";
    ground.inside(program).await
}

pub(crate) async fn opens_a_device_of_the_host(ground: &Ground) -> Finding {
    let program = "
import glob
names = ['mem', 'kmem', 'port', 'kmsg', 'kvm', 'fuse', 'vsock', 'net/tun', 'loop-control', 'uinput']
paths = ['/dev/' + name for name in names] + ['/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock']
for pattern in ('vd*', 'sd*', 'nvme*', 'xvd*', 'dm-*', 'loop[0-9]*'): paths += glob.glob('/dev/' + pattern)
for path in paths:
    fd = tries(os.open, path, os.O_RDONLY | os.O_NONBLOCK)
    if fd is not None: escaped(path)
";
    ground.inside(program).await
}

pub(crate) async fn makes_a_device(ground: &Ground) -> Finding {
    // Zeros, which do nobody harm.
    let program = "
for folder in ('.', '/tmp', '/dev/shm'):
    path = folder + '/device-' + str(os.getpid())
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        tries(os.mknod, path, kind | 0o666, os.makedev(1, 5))
        if tries(lambda: os.read(os.open(path, os.O_RDONLY), 3)) == bytes(3): escaped('a device that works in', folder)
        tries(os.remove, path)
";
    ground.inside(program).await
}

pub(crate) async fn gains_rights_by_a_set_user_id_program(ground: &Ground) -> Finding {
    let program = "
status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)
if status['NoNewPrivs'].strip() == '0': escaped('set-user-id programs raise')
if int(status['CapEff'], 16) or int(status['CapPrm'], 16): escaped('capabilities', status['CapEff'].strip())
";
    ground.inside(program).await
}

/// On the host's disk the workspace's files may be root's.
pub(crate) async fn leaves_a_set_user_id_file_for_the_host(ground: &Ground) -> Finding {
    let program = "
def made(name): os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o755)); return name
tries(lambda: os.chmod(made('by-chmod'), 0o4755))
tries(lambda: os.fchmod(os.open(made('by-fchmod'), os.O_RDONLY), 0o4755))
os.umask(0)
tries(lambda: os.close(os.open('by-open', os.O_CREAT | os.O_WRONLY, 0o4755)))
tries(lambda: os.mknod('by-mknod', 0o4755 | stat.S_IFREG))
tries(lambda: os.mkdir('by-mkdir', 0o2777))
if platform.machine() == 'x86_64':
    call(452, -100, made('by-fchmodat2').encode(), 0o4755, 0)
    how = struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, 0o4755, 0)
    call(437, -100, b'by-openat2', how, len(how))
";
    ground.inside(program).await?;
    let Some(workspace) = &ground.sandbox.workspace else {
        return Err("its files are not on this host".to_owned());
    };
    Ok(set_id_below(workspace))
}

/// Files below a directory of this host that give rights to who runs them.
pub(crate) fn set_id_below(folder: &std::path::Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.mode() & 0o6000 != 0 {
            found.push(format!("{} has mode {:o}", entry.file_name().display(), metadata.mode()));
        }
    }
    found
}

/// What another sandbox is reached by lies beside its workspace.
pub(crate) async fn finds_another_sandboxs_door(ground: &Ground) -> Finding {
    let program = "
import glob
for pattern in ('../*', '../../*', '../../*/supervisor.*', '/run/*.sock'):
    for path in tries(glob.glob, pattern) or []:
        where = os.path.realpath(path)
        if where.startswith(os.path.realpath('.')): continue
        if 'sandboxes' in where or 'supervisor' in where: escaped(where)
";
    ground.inside(program).await
}
