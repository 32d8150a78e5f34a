import Base
import CPlatform
import Foundation

/// An open file that closes itself; positional reads and writes, so it may be shared between threads.
package final class LogFile: Sendable {
    package let path: String
    let descriptor: Int32

    package init(
        path: String, create: Bool, readOnly: Bool = false, exclusive: Bool = false
    ) throws(EventLogError) {
        let flags = readOnly ? O_RDONLY : (create ? O_RDWR | O_CREAT | (exclusive ? O_EXCL : 0) : O_RDWR)
        let descriptor = open(path, flags | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else {
            let reason = LogFile.reason(errno)
            throw EventLogError("open-failed", "cannot open \(path): \(reason)", fault: .world)
        }
        self.path = path
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    static func reason(_ code: Int32) -> String { String(cString: strerror(code)) }

    var size: Int64 {
        var info = stat()
        return fstat(descriptor, &info) == 0 ? Int64(info.st_size) : 0
    }

    /// Up to `count` bytes; fewer at the end of the file.
    func read(at offset: Int64, count: Int) throws(EventLogError) -> [UInt8] {
        var got = 0
        var result: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            result = headrace_pread_all(descriptor, buffer.baseAddress, count, off_t(offset), &got)
            filled = got
        }
        guard result == 0 else {
            throw EventLogError(
                "read-failed", "cannot read \(count) bytes at \(offset) of \(path): \(LogFile.reason(result))",
                fault: .world)
        }
        return bytes
    }

    func write(_ bytes: [UInt8], at offset: Int64) throws(EventLogError) {
        let result = bytes.withUnsafeBytes { headrace_pwrite_all(descriptor, $0.baseAddress, $0.count, off_t(offset)) }
        guard result == 0 else {
            let full = result == ENOSPC ? "; free some space and start the node again" : ""
            throw EventLogError(
                result == ENOSPC ? "disk-full" : "write-failed",
                "cannot write \(bytes.count) bytes to \(path): \(LogFile.reason(result))\(full)", fault: .world)
        }
    }

    func sync() throws(EventLogError) {
        let result = headrace_sync_data(descriptor)
        guard result == 0 else {
            throw EventLogError(
                "sync-failed",
                "fdatasync of \(path) failed: \(LogFile.reason(result)); what was not acknowledged may be lost, start the node again",
                fault: .world)
        }
    }

    func truncate(to size: Int64) throws(EventLogError) {
        guard ftruncate(descriptor, off_t(size)) == 0 else {
            throw EventLogError(
                "write-failed", "cannot cut \(path) to \(size) bytes: \(LogFile.reason(errno))", fault: .world)
        }
    }

    /// Makes a created or renamed entry of the directory durable.
    static func syncDirectory(_ path: String) throws(EventLogError) {
        let directory = try LogFile(path: path, create: false, readOnly: true)
        guard fsync(directory.descriptor) == 0 else {
            throw EventLogError("sync-failed", "fsync of the directory \(path) failed: \(reason(errno))", fault: .world)
        }
    }
}
