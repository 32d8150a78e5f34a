import Base
import CPlatform
import Foundation

/// A directory of the real file system.
package final class DiskVolume: LogVolume {
    package let path: String

    package init(_ path: String) { self.path = path }

    private func full(_ relative: String) -> String { relative.isEmpty ? path : path + "/" + relative }

    package func list() throws(EventLogError) -> [String] {
        do {
            var result: [String] = []
            for name in try FileManager.default.contentsOfDirectory(atPath: path) {
                var isDirectory: ObjCBool = false
                guard FileManager.default.fileExists(atPath: full(name), isDirectory: &isDirectory) else { continue }
                if isDirectory.boolValue {
                    result += try FileManager.default.contentsOfDirectory(atPath: full(name)).map { name + "/" + $0 }
                } else {
                    result.append(name)
                }
            }
            return result.sorted()
        } catch {
            throw EventLogError("open-failed", "cannot list the directory \(path)", cause: error, fault: .world)
        }
    }

    package func open(_ relative: String, _ mode: LogFileMode) throws(EventLogError) -> any LogFile {
        try DiskFile(path: full(relative), mode)
    }

    package func remove(_ relative: String) throws(EventLogError) {
        guard unlink(full(relative)) == 0 || errno == ENOENT else {
            throw EventLogError(
                "write-failed", "cannot remove \(full(relative)): \(DiskFile.reason(errno))", fault: .world)
        }
    }

    package func rename(_ from: String, _ to: String) throws(EventLogError) {
        guard Foundation.rename(full(from), full(to)) == 0 else {
            throw EventLogError("write-failed", "cannot rename \(full(from)): \(DiskFile.reason(errno))", fault: .world)
        }
    }

    package func makeDirectory(_ relative: String) throws(EventLogError) {
        do {
            try FileManager.default.createDirectory(atPath: full(relative), withIntermediateDirectories: true)
        } catch {
            throw EventLogError(
                "open-failed", "cannot create the directory \(full(relative))", cause: error, fault: .world)
        }
    }

    package func syncDirectory(_ relative: String) throws(EventLogError) {
        let directory = try DiskFile(path: full(relative), .read)
        guard fsync(directory.descriptor) == 0 else {
            throw EventLogError(
                "sync-failed", "fsync of the directory \(full(relative)) failed: \(DiskFile.reason(errno))",
                fault: .world)
        }
    }

    package func lock() throws(EventLogError) -> any Sendable {
        let file = try DiskFile(path: full("LOCK"), .create)
        // A process that is being started elsewhere in this one holds what is open here, the lock of a log that was just
        // closed among it, between its fork and its exec: a moment later it does not.
        for attempt in 0..<DiskVolume.lockAttempts {
            if headrace_lock_exclusive(file.descriptor) == 0 { return file }
            if attempt + 1 < DiskVolume.lockAttempts { usleep(DiskVolume.lockPause) }
        }
        throw EventLogError("locked", "another node owns the log in \(path); talk to it, or stop it first")
    }

    private static let lockAttempts = 5
    /// Between two of them, in microseconds.
    private static let lockPause: UInt32 = 20_000

    /// Whether a living process holds the lock, whatever pid files may say.
    package var isLocked: Bool {
        guard let file = try? DiskFile(path: full("LOCK"), .write) else { return false }
        return headrace_lock_exclusive(file.descriptor) != 0
    }
}

/// An open file that closes itself.
final class DiskFile: LogFile {
    let path: String
    let descriptor: Int32

    init(path: String, _ mode: LogFileMode) throws(EventLogError) {
        let flags =
            switch mode {
            case .read: O_RDONLY
            case .write: O_RDWR
            case .create: O_RDWR | O_CREAT
            case .createNew: O_RDWR | O_CREAT | O_EXCL
            }
        let descriptor = Foundation.open(path, flags | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else {
            let code = errno == ENOENT ? "no-such-file" : "open-failed"
            let reason = DiskFile.reason(errno)
            throw EventLogError(code, "cannot open \(path): \(reason)", fault: .world)
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

    func read(at offset: Int64, count: Int) throws(EventLogError) -> [UInt8] {
        var got = 0
        var result: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            result = headrace_pread_all(descriptor, buffer.baseAddress, count, off_t(offset), &got)
            filled = got
        }
        guard result == 0 else {
            throw EventLogError(
                "read-failed", "cannot read \(count) bytes at \(offset) of \(path): \(DiskFile.reason(result))",
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
                "cannot write \(bytes.count) bytes to \(path): \(DiskFile.reason(result))\(full)", fault: .world)
        }
    }

    func sync() throws(EventLogError) {
        let result = headrace_sync_data(descriptor)
        guard result == 0 else {
            throw EventLogError(
                "sync-failed",
                "fdatasync of \(path) failed: \(DiskFile.reason(result)); what was not acknowledged may be lost, start the node again",
                fault: .world)
        }
    }

    func truncate(to size: Int64) throws(EventLogError) {
        guard ftruncate(descriptor, off_t(size)) == 0 else {
            throw EventLogError(
                "write-failed", "cannot cut \(path) to \(size) bytes: \(DiskFile.reason(errno))", fault: .world)
        }
    }

    func reserve(_ range: Range<Int64>) -> Bool {
        headrace_reserve(descriptor, off_t(range.lowerBound), off_t(range.count)) == 0
    }
}
