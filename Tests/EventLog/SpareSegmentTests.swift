import Base
import EventLog
import Foundation
import RecordFormat
import Testing

/// A volume that tells when files are opened and renamed, before it is done.
private final class WatchedVolume: LogVolume {
    struct Watch: Sendable {
        var opened: @Sendable (String) -> Void = { _ in }
        var renamed: @Sendable (String) -> Void = { _ in }
    }

    private let base: DiskVolume
    let watch = Monitor(Watch())

    init(_ path: String) { base = DiskVolume(path) }

    var path: String { base.path }
    func list() throws(EventLogError) -> [String] { try base.list() }
    func remove(_ path: String) throws(EventLogError) { try base.remove(path) }
    func makeDirectory(_ path: String) throws(EventLogError) { try base.makeDirectory(path) }
    func syncDirectory(_ path: String) throws(EventLogError) { try base.syncDirectory(path) }
    func lock() throws(EventLogError) -> any Sendable { try base.lock() }

    func open(_ path: String, _ mode: LogFileMode) throws(EventLogError) -> any LogFile {
        watch.withLock { $0.opened }(path)
        return try base.open(path, mode)
    }

    func rename(_ from: String, _ to: String) throws(EventLogError) {
        watch.withLock { $0.renamed }(from)
        try base.rename(from, to)
    }
}

/// The file of zeros that becomes the next segment, between the thread that writes and the one that prepares.
@Suite struct SpareSegmentTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    /// Upkeep that comes by while the spare file becomes a segment leaves it alone, though one was asked for again.
    @Test func aSpareThatIsTakenIsNotPreparedAgain() throws {
        var options = EmbeddedLog.Options()
        options.segmentSize = 4000
        options.hasThreads = false
        options.wallClock = { Instant(milliseconds: 1) }
        let volume = WatchedVolume(scratch.path)
        let log = try EmbeddedLog.open(volume, options: options)
        try log.declare(TopicLayout(name: "t", partitions: 1))
        var count = 0
        func add(_ more: Int) {
            for _ in 0..<more {
                log.append(LogAppend(principal: "p", events: [("t", nil, EmbeddedLogTests.event("e\(count)"))])) { _ in
                }
                log.commitReady()
                count += 1
            }
        }
        let isOpened = DispatchSemaphore(value: 0)
        let mayGoOn = DispatchSemaphore(value: 0)
        let failures = Monitor<[EventLogError]>([])
        let isDone = DispatchGroup()
        let maintain: @Sendable () -> Void = {
            do throws(EventLogError) { try log.maintain() } catch { failures.withLock { $0.append(error) } }
        }
        add(6)
        volume.watch.withLock { $0.opened = { if $0 == "spare" { isOpened.signal(); mayGoOn.wait() } } }
        DispatchQueue.global().async(group: isDone, execute: maintain)
        try #require(isOpened.wait(timeout: .now() + 20) == .success)
        // The segment fills without its spare, and the next one asks for another.
        add(25)
        mayGoOn.signal()
        isDone.wait()
        let isTaken = Monitor(false)
        volume.watch.withLock {
            $0.opened = { if $0 == "spare" { isOpened.signal() } }
            $0.renamed = { name in
                guard name == "spare" else { return }
                isTaken.withLock { $0 = true }
                DispatchQueue.global().async(group: isDone, execute: maintain)
                // Upkeep that would open it does so within milliseconds.
                #expect(isOpened.wait(timeout: .now() + 0.3) == .timedOut, "prepared while it was taken")
            }
        }
        while !isTaken.withLock({ $0 }), count < 200 { add(1) }
        isDone.wait()
        volume.watch.withLock { $0 = WatchedVolume.Watch() }
        add(60)
        try log.maintain()
        add(60)
        #expect(isTaken.withLock { $0 } && failures.withLock { $0.isEmpty })
        #expect(try log.verify().isIntact)
        #expect(try EmbeddedLogTests.contents(log).values.reduce(0) { $0 + $1.count } == count)
        log.close()
        #expect(try EmbeddedLog.open(volume, options: options).verify().events == UInt64(count))
    }
}
