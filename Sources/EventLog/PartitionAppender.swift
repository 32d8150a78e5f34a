import Base
import RecordFormat

/// Sizes of batches in partition files, in bytes.
package struct RewriteSizes: Sendable {
    /// Small batches are put together until they hold this many bytes before compression.
    package var joined = 256 << 10
    /// Batches stored with this many bytes or more are taken as they are.
    package var verbatim = 16 << 10
    package init() {}
}

/// Writes batches behind each other into the files of one partition, beginning a new file where one is full. Nothing it
/// writes counts before a manifest says so.
struct PartitionAppender {
    /// Bytes handed to the file at once.
    private static let writeSize = 1 << 20

    private let cache: FileCache
    private let limit: Int64
    let sizes: RewriteSizes
    private(set) var partition: Manifest.Partition
    private(set) var written: UInt64 = 0
    private(set) var createdFiles = false
    private var record: Manifest.File?
    private var file: (any LogFile)?
    private var entries: [BatchEntry] = []
    private var pending: [UInt8] = []
    private var builder: RecordBatchBuilder?
    private var builderBase: Int64 = 0
    private var builderRecorded: Int64 = .min
    private var digest: DigestStream?
    private let generation: UInt32
    /// Records were taken out: files get a digest, and nothing is appended to files from before.
    private let compacts: Bool
    private(set) var files: [Manifest.File] = []

    /// - Parameter compacts: begins new files of that generation instead of appending to the last one.
    init(
        _ partition: Manifest.Partition, cache: FileCache, options: EmbeddedLog.Options,
        compactingAs generation: UInt32? = nil
    ) {
        self.partition = partition
        self.cache = cache
        limit = options.partitionFileSize
        sizes = options.rewriting
        self.generation = generation ?? 0
        compacts = generation != nil
    }

    var end: Int64 { builder == nil ? record?.end ?? partition.end : nextBuilderOffset }
    private var nextBuilderOffset: Int64 = 0

    /// Takes a stored batch: as it is when it is large, or with its neighbours when it is small.
    mutating func append(
        _ bytes: [UInt8], _ header: RecordBatchHeader, recordedTime: Int64
    ) throws(EventLogError) {
        if bytes.count >= sizes.verbatim || !header.producer.isNone || header.count == 0 {
            try flushBuilder()
            try write(bytes, BatchWalker.entry(header, at: 0), recordedTime)
            return
        }
        let batch: RecordBatch
        do {
            batch = try bytes.withRaw { raw throws(RecordFormatError) in try RecordBatch(raw) }
        } catch {
            throw EventLogError(
                "rot", "a batch of \(partition.partition) at offset \(header.baseOffset) is damaged", cause: error,
                fault: .world)
        }
        if builder != nil, nextBuilderOffset != header.baseOffset { try flushBuilder() }
        if builder == nil { begin(at: header.baseOffset) }
        for index in batch.records.indices { builder?.append(batch, index) }
        nextBuilderOffset = header.lastOffset + 1
        builderRecorded = max(builderRecorded, recordedTime)
        if (builder?.size ?? 0) >= sizes.joined { try flushBuilder() }
    }

    private mutating func begin(at offset: Int64) {
        builder = RecordBatchBuilder(baseOffset: offset, capacity: sizes.joined + (16 << 10))
        builderBase = offset
        nextBuilderOffset = offset
    }

    private mutating func flushBuilder() throws(EventLogError) {
        guard let full = builder else { return }
        builder = nil
        let encoded = full.finish(lastOffset: nextBuilderOffset - 1)
        try write(encoded, end: nextBuilderOffset, builderRecorded)
        builderRecorded = .min
    }

    mutating func write(_ batch: EncodedBatch, end: Int64, _ recordedTime: Int64) throws(EventLogError) {
        try write(
            batch.bytes,
            BatchEntry(
                baseOffset: batch.baseOffset, end: end, maxTime: batch.maxTimestamp, fileOffset: 0,
                size: Int32(batch.bytes.count), count: Int32(batch.count)), recordedTime)
    }

    private mutating func write(_ bytes: [UInt8], _ entry: BatchEntry, _ recordedTime: Int64) throws(EventLogError) {
        if record == nil { try open(at: entry.baseOffset) }
        if let full = record, full.bytes >= limit {
            try seal()
            try create(at: entry.baseOffset)
        }
        guard var current = record else { return }
        entries.append(
            BatchEntry(
                baseOffset: entry.baseOffset, end: entry.end, maxTime: entry.maxTime, fileOffset: current.bytes,
                size: entry.size, count: entry.count))
        pending.append(contentsOf: bytes)
        digest?.update(bytes)
        current.bytes += Int64(bytes.count)
        current.records += Int64(entry.count)
        current.end = entry.end
        current.maxTime = max(current.maxTime, entry.maxTime)
        current.newestRecorded = max(current.newestRecorded, recordedTime)
        record = current
        written += UInt64(bytes.count)
        if pending.count >= PartitionAppender.writeSize { try flush() }
    }

    private mutating func open(at offset: Int64) throws(EventLogError) {
        guard !compacts, let last = partition.files.last, !last.isCompacted, last.bytes < limit else {
            return try create(at: offset)
        }
        // If somebody took the file away, the partition goes on in the next one.
        guard let known = try? cache.volume.open(last.path(partition.partition), .write), known.size >= last.bytes
        else {
            return try create(at: offset)
        }
        entries = try PartitionFile(partition.partition, last, cache).entries()
        record = last
        file = known
    }

    private mutating func create(at offset: Int64) throws(EventLogError) {
        let fresh = Manifest.File(baseOffset: offset, end: offset, generation: generation)
        let path = fresh.path(partition.partition)
        try cache.volume.makeDirectory(Manifest.directory(partition.partition))
        let created = try cache.volume.open(path, .create)
        // What an interrupted attempt left there.
        try created.truncate(to: 0)
        cache.forget(path)
        createdFiles = true
        file = created
        record = fresh
        entries = []
        if compacts { digest = DigestStream() }
    }

    private mutating func flush() throws(EventLogError) {
        guard !pending.isEmpty, let file, let record else { return }
        try file.write(pending, at: record.bytes - Int64(pending.count))
        pending.removeAll(keepingCapacity: true)
    }

    /// Brings the current file to disk with its index.
    private mutating func seal() throws(EventLogError) {
        guard var done = record, let file else { return }
        try flush()
        try file.sync()
        let index = PartitionFile.encodeIndex(entries)
        done.indexStamp = PartitionFile.stamp(index)
        if let digest { done.digest = digest.finish() }
        try cache.volume.replace(
            PartitionFile.indexPath(done.path(partition.partition)), with: index, durable: false)
        written += UInt64(index.count)
        files.append(done)
        record = nil
        self.file = nil
        entries = []
        digest = nil
    }

    /// Ends the work: everything is on disk, and the partition's record names it.
    mutating func finish() throws(EventLogError) -> Manifest.Partition {
        try flushBuilder()
        try seal()
        if createdFiles {
            try cache.volume.syncDirectory(Manifest.directory(partition.partition))
            try cache.volume.syncDirectory("")
        }
        guard !compacts else { return partition }
        for file in files {
            if let last = partition.files.last, last.baseOffset == file.baseOffset { partition.files.removeLast() }
            partition.files.append(file)
        }
        partition.end = max(partition.end, partition.files.last?.end ?? 0)
        return partition
    }
}
