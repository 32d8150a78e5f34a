import Base

/// One version of a dataset as the log knows it: what it was made of and by what, and where its rows are. It never changes.
package struct DatasetManifest: Sendable {
    package enum Kind: String, Sendable {
        case rows, files
    }

    package let name: String
    package let version: Int64
    package let kind: Kind
    /// What was asked for.
    package let request: JSON
    /// Versions of definitions that were used: `service NAME@V`, `view NAME@V`.
    package let definitions: [String]
    /// How far each partition was read: `TOPIC/P` and the next offset.
    package let positions: [String: Int64]
    package let rows: Int64
    /// Columns with their types; empty for files.
    package let schema: JSON
    package let statistics: JSON
    /// `{label: {part: {value: rows}}}`.
    package let balance: JSON
    /// What a reader should know: late events, events a view could not read, classes out of balance.
    package let notices: [String]
    /// The chunk that lists the dataset's chunks.
    package let recipe: Digest
    package let chunks: Int64
    package let bytes: Int64
    /// Of schema and content: the same for the same rows, whenever and wherever they were made.
    package let digest: Digest

    package init(
        name: String, version: Int64, kind: Kind, request: JSON, definitions: [String], positions: [String: Int64],
        rows: Int64, schema: JSON, statistics: JSON, balance: JSON, notices: [String], recipe: ChunkRecipe
    ) {
        (self.name, self.version, self.kind, self.request) = (name, version, kind, request)
        (self.definitions, self.positions, self.rows, self.schema) = (definitions, positions, rows, schema)
        (self.statistics, self.balance, self.notices) = (statistics, balance, notices)
        self.recipe = Digest.of(recipe.encoded)
        chunks = Int64(recipe.digests.count)
        bytes = recipe.byteCount
        digest = Digest.of(schema.canonical + recipe.root.bytes)
    }

    package var reference: String { "\(name)@\(version)" }

    package var json: JSON {
        .object([
            "name": .string(name), "version": .int(version), "kind": .string(kind.rawValue), "request": request,
            "definitions": .array(definitions.map { .string($0) }),
            "positions": .object(positions.mapValues { .int($0) }), "rows": .int(rows), "schema": schema,
            "statistics": statistics, "balance": balance, "notices": .array(notices.map { .string($0) }),
            "recipe": .string(recipe.hex), "chunks": .int(chunks), "bytes": .int(bytes), "digest": .string(digest.hex),
        ])
    }

    /// Nil for what is no manifest.
    package init?(_ json: JSON) {
        guard let name = json["name"]?.string, let version = json["version"]?.int,
            let kind = json["kind"]?.string.flatMap({ Kind(rawValue: $0) }),
            let recipe = json["recipe"]?.string.flatMap({ Digest(hex: $0) }),
            let digest = json["digest"]?.string.flatMap({ Digest(hex: $0) })
        else { return nil }
        (self.name, self.version, self.kind, self.recipe, self.digest) = (name, version, kind, recipe, digest)
        request = json["request"] ?? .null
        definitions = (json["definitions"]?.array ?? []).compactMap(\.string)
        positions = (json["positions"]?.object ?? [:]).compactMapValues(\.int)
        rows = json["rows"]?.int ?? 0
        schema = json["schema"] ?? .null
        statistics = json["statistics"] ?? .null
        balance = json["balance"] ?? .null
        notices = (json["notices"]?.array ?? []).compactMap(\.string)
        chunks = json["chunks"]?.int ?? 0
        bytes = json["bytes"]?.int ?? 0
    }

    /// Columns as they are read back.
    package var columns: [(name: String, kind: DatasetColumn.Kind)] {
        (schema.array ?? []).compactMap { column in
            guard let name = column["name"]?.string,
                let kind = column["type"]?.string.flatMap({ DatasetColumn.Kind(rawValue: $0) })
            else { return nil }
            return (name, kind)
        }
    }

    /// Whether another version says the same of the same.
    package func isSame(as other: DatasetManifest) -> Bool {
        digest == other.digest && request == other.request && positions == other.positions
            && definitions == other.definitions
    }
}

extension ChunkStore {
    package func recipe(of manifest: DatasetManifest) throws(DatasetsError) -> ChunkRecipe {
        let recipe = try ChunkRecipe(try get(manifest.recipe))
        guard Digest.of(manifest.schema.canonical + recipe.root.bytes) == manifest.digest else {
            throw DatasetsError("rot", "the list of chunks of \(manifest.reference) is another's", fault: .world)
        }
        return recipe
    }

    /// All rows of a version, every chunk checked.
    package func table(of manifest: DatasetManifest) throws -> DatasetTable {
        var decoder = DatasetRows.Decoder(schema: manifest.columns)
        try read(try recipe(of: manifest)) { try decoder.take($0) }
        return try decoder.table()
    }

    /// Rows that are in memory as bytes.
    private static let rowsAtOnce = 1024

    /// Keeps a table's rows.
    package func keep(_ table: DatasetTable) throws(DatasetsError) -> ChunkRecipe {
        var writer = ChunkWriter(self)
        var encoder = DatasetRows.Encoder(table)
        for start in stride(from: 0, to: table.count, by: ChunkStore.rowsAtOnce) {
            try writer.append(encoder.encode(start..<min(start + ChunkStore.rowsAtOnce, table.count)))
        }
        return try keep(&writer)
    }

    /// Ends a writer and keeps the list of its chunks with them.
    package func keep(_ writer: inout ChunkWriter) throws(DatasetsError) -> ChunkRecipe {
        let recipe = try writer.finish()
        try put(recipe.encoded[...])
        try sync()
        return recipe
    }
}
