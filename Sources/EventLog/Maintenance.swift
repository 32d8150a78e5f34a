import Base
import CPlatform
import RecordFormat

/// What the upkeep of a log knows.
struct Maintenance: Sendable {
    var manifest: Manifest
    /// Sealed WAL segments that still stand as such, oldest first.
    var sealed: [SealedSegment]
    var closing = false
    var isWoken = false
    var failure: EventLogError?
    /// A file full of zeros that becomes the next WAL segment.
    var spare: (any LogFile)?
    var wantsSpare = false
    /// Files that the disk gives no bytes of, by path.
    var unreadable: [String: Unreadable] = [:]
    /// Indexes of partition files that were built again since the start; an index is looked at when it is first needed.
    var rebuiltIndexes: [String] = []
    /// Found while running; what opening found stands in its report.
    var lostIdentifiers: [LostIdentifiers] = []
    /// Damaged places that reads met.
    var rotten: [String] = []
    /// Files of ids that were away when the log was opened and could be had later: nothing of them is lost.
    var regainedIdentifiers: Set<String> = []
    /// Set when nobody knows which manifest a crash would leave: then nothing is moved or removed until the next start.
    var stopped: EventLogError?
}

/// How long a file has been giving no bytes.
struct Unreadable: Sendable {
    /// The first time that it was met, on the clock that only goes forward, in milliseconds.
    let since: Int64
    var attempts: Int
}

/// A WAL segment that gets no more frames.
struct SealedSegment: Sendable {
    let segment: EmbeddedLog.Segment
    var index: SegmentIndexFile
    let keepsIndex: Bool
    /// Ids of its first events, in a file from an earlier run.
    let prior: IdentifierFile?
    /// Index and ids are on disk.
    var isIndexed = false
    /// Ticket of the first append that stands behind it.
    let writtenTicket: Int
}

extension EmbeddedLog {
    func maintenanceLoop() {
        headrace_yield_to_others()
        // Ids of earlier runs have no filter yet.
        wakeMaintenance()
        while true {
            let isClosing = maintenance.wait(seconds: options.maintenanceInterval) { state -> Bool? in
                if state.closing { return true }
                let hasWork = state.isWoken || state.wantsSpare || (!state.sealed.isEmpty && state.failure == nil)
                state.isWoken = false
                return hasWork ? false : nil
            }
            if isClosing == true { return }
            do throws(EventLogError) {
                try maintain()
            } catch {
                // The log goes on as it is; the reason stands in the statistics, and the next interval tries again.
                maintenance.update { $0.failure = error }
            }
        }
    }

    func wakeMaintenance() { maintenance.update { $0.isWoken = true } }

    /// One pass of upkeep: writes indexes of sealed segments, moves them into partition files, gives up what retention
    /// lets go, compacts, and forgets ids behind every horizon. Runs by itself in the background; callers see it done.
    /// - Parameter compacts: compacts even where little would be won.
    package func maintain(compactsAll compacts: Bool = false) throws(EventLogError) {
        guard !options.readOnly else {
            throw EventLogError("read-only", "the log in \(volume.path) was opened for reading only")
        }
        // One step that fails does not keep the others from their work; the first failure is reported.
        var failure: EventLogError?
        func attempt(_ step: () throws(EventLogError) -> Void) {
            do throws(EventLogError) { try step() } catch { failure = failure ?? error }
        }
        upkeep.withLock { _ in
            // A log that was closed may be another's by now.
            guard lock.withLock({ $0 != nil }) else { return }
            attempt { () throws(EventLogError) in try prepareSpare() }
            attempt { () throws(EventLogError) in try rollOldSegment() }
            attempt { () throws(EventLogError) in try indexSealed() }
            filterIdentifiers()
            if let stopped = maintenance.withLock({ $0.stopped }) {
                // Nothing that would need a new manifest is begun.
                failure = failure ?? stopped
                maintenance.update { $0.failure = failure }
                return
            }
            // First what makes room.
            attempt { () throws(EventLogError) in try retain() }
            attempt { () throws(EventLogError) in
                // Never without its ids on disk: they may not be had from the partition files later.
                while !isClosing, let sealed = maintenance.withLock({ $0.sealed.first }), sealed.isIndexed {
                    try rewrite(sealed)
                    // Others may have been sealed meanwhile; their ids leave the memory first.
                    try indexSealed()
                    filterIdentifiers()
                }
            }
            attempt { () throws(EventLogError) in try retain() }
            attempt { () throws(EventLogError) in try rebuildDamagedIdentifiers() }
            attempt { () throws(EventLogError) in try compact(all: compacts) }
            attempt { () throws(EventLogError) in try forgetIdentifiers() }
            filterIdentifiers()
            let now = options.wallClock().milliseconds
            sequencer.withLock { $0.producers.expire(now: now) }
            attempt { () throws(EventLogError) in try writeMissingIndexes() }
            maintenance.update { $0.failure = failure }
        }
        if let failure { throw failure }
    }

    /// A log that closes breaks its upkeep off between two steps.
    var isClosing: Bool { maintenance.withLock { $0.closing } && options.hasThreads }

    /// Builds the indexes of partitions' files that are missing or damaged; `maintain` writes them. Files of which the batches
    /// cannot be read keep waiting for theirs.
    package func buildMissingIndexes() throws(EventLogError) {
        let files = shared.withLock { state in state.partitions.list.flatMap(\.files) }
        for file in files where !file.hasIndex {
            do throws(EventLogError) {
                _ = try file.entries()
            } catch {
                guard ["no-such-file", "read-failed"].contains(error.code) else { throw error }
            }
        }
    }

    /// Indexes that were rebuilt in memory are written beside their files again.
    private func writeMissingIndexes() throws(EventLogError) {
        let files = shared.withLock { state in state.partitions.list.flatMap(\.files) }
        for file in files {
            guard let index = file.rebuiltIndex else { continue }
            let path = PartitionFile.indexPath(file.path)
            try volume.replace(path, with: index, durable: false)
            file.indexWasWritten()
            maintenance.withLock { $0.rebuiltIndexes.append(path) }
        }
    }

    /// Name of the spare file; it counts for nothing until it is renamed.
    static let spare = "spare"

    /// Writes the next segment full of zeros ahead of its use. Appends then overwrite blocks that are there already, and a
    /// sync need not wait for the file system's journal, which would bring everybody else's data to disk with it.
    private func prepareSpare() throws(EventLogError) {
        let isWanted = maintenance.withLock { state in
            defer { state.wantsSpare = false }
            return state.wantsSpare && state.spare == nil && !state.closing
        }
        guard isWanted else { return }
        let file = try volume.open(EmbeddedLog.spare, .create)
        try file.truncate(to: 0)
        let zeros = [UInt8](repeating: 0, count: Int(min(options.segmentSize, 1 << 20)))
        do throws(EventLogError) {
            var offset: Int64 = 0
            while offset < options.segmentSize {
                try file.write(zeros, at: offset)
                offset += Int64(zeros.count)
            }
            try file.sync()
        } catch {
            // On a full disk the space belongs to events.
            try? volume.remove(EmbeddedLog.spare)
            throw error
        }
        maintenance.withLock { $0.spare = file }
    }

    /// Buckets of ids taken into the filter at once: appends wait for no longer than that.
    private static let filterBuckets = 512

    /// Takes files of ids into the filter that spares looking through them.
    private func filterIdentifiers() {
        for file in sequencer.withLock({ $0.identifiers.unfiltered }) {
            var bucket = 0
            while bucket < file.buckets {
                if isClosing { return }
                let next = min(bucket + EmbeddedLog.filterBuckets, file.buckets)
                // A damaged one is built again by this pass, and taken in by the next.
                guard let hashes = file.hashes(in: bucket..<next),
                    sequencer.withLock({ $0.identifiers.filter(hashes) })
                else { break }
                bucket = next
            }
            if bucket == file.buckets { sequencer.withLock { $0.identifiers.isFiltered(file) } }
        }
    }

    /// Makes a manifest the valid one.
    func adopt(_ manifest: inout Manifest) throws(EventLogError) {
        if let stopped = maintenance.withLock({ $0.stopped }) { throw stopped }
        let (isAdopted, failure) = manifest.store(volume)
        let stored = manifest
        if isAdopted { maintenance.withLock { $0.manifest = stored } }
        guard let failure else { return }
        guard isAdopted else { throw failure }
        let reason = EventLogError(
            "upkeep-stopped",
            "the manifest of \(volume.path) could not be brought to disk; appends and reads go on, moving and trimming wait for the next start",
            cause: failure, fault: .world)
        maintenance.withLock { $0.stopped = reason }
        show(stored)
        throw reason
    }
}
