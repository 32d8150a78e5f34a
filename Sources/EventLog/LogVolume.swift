import Base

/// How a file is opened.
package enum LogFileMode: Sendable {
    case read
    /// It must exist.
    case write
    case create
    /// It must not exist.
    case createNew
}

/// An open file with positional reads and writes, so that threads may share it.
package protocol LogFile: AnyObject, Sendable {
    /// The path inside its volume, or from the root for a real file; for messages.
    var path: String { get }
    var size: Int64 { get }
    /// Up to `count` bytes; fewer at the end of the file.
    func read(at offset: Int64, count: Int) throws(EventLogError) -> [UInt8]
    func write(_ bytes: [UInt8], at offset: Int64) throws(EventLogError)
    /// Returns when everything written is on disk. A failure is final: what was written may be gone.
    func sync() throws(EventLogError)
    func truncate(to size: Int64) throws(EventLogError)
    /// Reserves zeroed space so that appends change no metadata; false when that cannot be had, which only costs speed.
    func reserve(_ range: Range<Int64>) -> Bool
}

/// A directory with files in it, at most one directory deep. The log's only way to the disk, so that a simulation can
/// take its place.
package protocol LogVolume: Sendable {
    var path: String { get }
    /// Relative paths of all files, sorted.
    func list() throws(EventLogError) -> [String]
    func open(_ path: String, _ mode: LogFileMode) throws(EventLogError) -> any LogFile
    func remove(_ path: String) throws(EventLogError)
    func rename(_ from: String, _ to: String) throws(EventLogError)
    /// Creates a directory where there is none.
    func makeDirectory(_ path: String) throws(EventLogError)
    /// Makes created, renamed and removed entries durable; an empty path is the volume itself.
    func syncDirectory(_ path: String) throws(EventLogError)
    /// Keeps every other process out until the returned object goes.
    func lock() throws(EventLogError) -> any Sendable
}

extension LogVolume {
    /// Everything in a small file; nil when there is none or it cannot be read.
    package func contents(_ path: String) -> [UInt8]? {
        guard let file = try? open(path, .read) else { return nil }
        return try? file.read(at: 0, count: Int(file.size))
    }

    /// Writes what shall take a file's place beside it.
    func prepare(_ path: String, with bytes: [UInt8], durable: Bool = true) throws(EventLogError) {
        let file = try open(path + ".tmp", .create)
        try file.truncate(to: 0)
        try file.write(bytes, at: 0)
        if durable { try file.sync() }
    }

    /// Replaces a file as a whole: after a crash there is the old one or the new one.
    /// - Parameter durable: false for derived files, which a crash may take.
    package func replace(_ path: String, with bytes: [UInt8], durable: Bool) throws(EventLogError) {
        try prepare(path, with: bytes, durable: durable)
        try rename(path + ".tmp", path)
        if durable { try syncDirectory(String(path.prefix(upTo: path.lastIndex(of: "/") ?? path.startIndex))) }
    }
}
