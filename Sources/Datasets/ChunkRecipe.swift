import Base

/// The chunks that make up some bytes, in their order. A recipe is kept as a chunk itself.
package struct ChunkRecipe: Sendable, Equatable {
    package private(set) var digests: [Digest] = []
    package private(set) var byteCount: Int64 = 0

    package init() {}

    mutating func add(_ digest: Digest, _ count: Int) {
        digests.append(digest)
        byteCount += Int64(count)
    }

    /// What the bytes are known by, whatever they are kept in.
    package var root: Digest { ChunkTree.root(digests) }

    package var encoded: [UInt8] {
        var writer = ByteWriter(capacity: 8 + digests.count * Digest.byteCount)
        writer.append(little: byteCount)
        for digest in digests { writer.append(digest.bytes) }
        return writer.bytes
    }

    package init(_ bytes: [UInt8]) throws(DatasetsError) {
        guard bytes.count >= 8, (bytes.count - 8) % Digest.byteCount == 0 else {
            throw DatasetsError(
                "bad-recipe", "a list of chunks has \(bytes.count) bytes, which no list has", fault: .world)
        }
        byteCount = bytes.withUnsafeBytes { Int64(littleEndian: $0.loadUnaligned(as: Int64.self)) }
        for from in stride(from: 8, to: bytes.count, by: Digest.byteCount) {
            guard let digest = Digest(bytes[from..<from + Digest.byteCount]) else { continue }
            digests.append(digest)
        }
    }
}

/// Cuts what comes into chunks and keeps them.
package struct ChunkWriter {
    private let store: ChunkStore
    private var buffer: [UInt8] = []
    private var recipe = ChunkRecipe()

    package init(_ store: ChunkStore) { self.store = store }

    package mutating func append(_ bytes: [UInt8]) throws(DatasetsError) {
        buffer += bytes
        // A chunk is cut where its end is known to be: with less, what follows could move it.
        if buffer.count >= ContentChunker.largest * 8 { try cut(keeping: ContentChunker.largest) }
    }

    private mutating func cut(keeping rest: Int) throws(DatasetsError) {
        var from = 0
        while buffer.count - from > rest {
            let length = buffer.withUnsafeBytes { ContentChunker.cut(UnsafeRawBufferPointer(rebasing: $0[from...])) }
            recipe.add(try store.put(buffer[from..<from + length]), length)
            from += length
        }
        buffer.removeFirst(from)
    }

    /// Keeps the rest; what was written is on disk when this returns.
    package mutating func finish() throws(DatasetsError) -> ChunkRecipe {
        try cut(keeping: 0)
        try store.sync()
        return recipe
    }
}

extension ChunkStore {
    /// Hands a recipe's chunks on, one by one and checked.
    package func read(_ recipe: ChunkRecipe, _ body: ([UInt8]) throws -> Void) throws {
        for digest in recipe.digests { try body(try get(digest)) }
    }
}
