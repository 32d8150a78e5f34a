import Base

/// Writes a table as an Apache Parquet file (format 2.9: github.com/apache/parquet-format, README and parquet.thrift):
/// optional columns, plain values in one page for each column of a row group, uncompressed.
package struct ParquetFile {
    /// Rows of one row group, and bytes of text in it: a page's size is told in 31 bits.
    package static let groupRows = 1 << 16
    private static let groupBytes = 1 << 28
    private static let magic = [UInt8]("PAR1".utf8)

    private var out = ByteWriter()
    private var groups: [[Chunk]] = []
    private var groupRows: [Int] = []
    private let table: DatasetTable

    private struct Chunk {
        let offset: Int
        let size: Int
        let nulls: Int
    }

    /// - Parameter metadata: pairs for the file's own key-value metadata.
    package static func bytes(_ table: DatasetTable, metadata: [(key: String, value: String)]) -> [UInt8] {
        var file = ParquetFile(table: table)
        file.out.append(magic)
        for rows in table.groups(rows: groupRows, bytes: groupBytes) {
            file.groups.append(table.columns.map { file.page($0, rows) })
            file.groupRows.append(rows.count)
        }
        let footer = file.footer(metadata)
        file.out.append(footer)
        file.out.append(little: UInt32(footer.count))
        file.out.append(magic)
        return file.out.bytes
    }

    private init(table: DatasetTable) { self.table = table }

    // MARK: Pages

    private mutating func page(_ column: DatasetColumn, _ rows: Range<Int>) -> Chunk {
        var body = ByteWriter(capacity: rows.count * 9)
        let nulls = ParquetFile.levels(column, rows, &body)
        ParquetFile.values(column, rows, &body)
        var header = ThriftWriter()
        header.field(1, 0 as Int32)
        header.field(2, Int32(body.count))
        header.field(3, Int32(body.count))
        header.begin(5)
        header.field(1, Int32(rows.count))
        header.field(2, 0 as Int32)
        header.field(3, 3 as Int32)
        header.field(4, 3 as Int32)
        header.end()
        header.end()
        let offset = out.count
        out.append(header.bytes)
        out.append(body.bytes)
        return Chunk(offset: offset, size: out.count - offset, nulls: nulls)
    }

    /// Definition levels in the RLE and bit-packed hybrid, one bit each: 1 where there is a value.
    private static func levels(_ column: DatasetColumn, _ rows: Range<Int>, _ body: inout ByteWriter) -> Int {
        var runs = ByteWriter()
        var nulls = 0
        if column.missing.isEmpty {
            runs.append(unsigned: UInt64(rows.count) << 1)
            runs.append(1 as UInt8)
        } else {
            runs.append(unsigned: UInt64((rows.count + 7) / 8) << 1 | 1)
            var byte: UInt8 = 0
            for (index, row) in rows.enumerated() {
                if column.missing[row] { nulls += 1 } else { byte |= 1 << UInt8(index & 7) }
                if index & 7 == 7 || row == rows.upperBound - 1 {
                    runs.append(byte)
                    byte = 0
                }
            }
        }
        body.append(little: UInt32(runs.count))
        body.append(runs.bytes)
        return nulls
    }

    private static func values(_ column: DatasetColumn, _ rows: Range<Int>, _ body: inout ByteWriter) {
        switch column.values {
        case .doubles(let list): for row in rows where !column.isMissing(row) { body.append(list[row]) }
        case .integers(let list), .moments(let list):
            for row in rows where !column.isMissing(row) { body.append(little: list[row]) }
        case .texts(let list): for row in rows where !column.isMissing(row) { body.append(sized: list[row]) }
        case .flags(let list):
            var (byte, count) = (0 as UInt8, 0)
            for row in rows where !column.isMissing(row) {
                if list[row] { byte |= 1 << UInt8(count & 7) }
                count += 1
                if count & 7 == 0 {
                    body.append(byte)
                    byte = 0
                }
            }
            if count & 7 != 0 { body.append(byte) }
        }
    }

    // MARK: Footer

    /// parquet.thrift, `Type`.
    private static func type(_ kind: DatasetColumn.Kind) -> Int32 {
        switch kind {
        case .flag: 0
        case .integer, .moment: 2
        case .double: 5
        case .text: 6
        }
    }

    private func footer(_ metadata: [(key: String, value: String)]) -> [UInt8] {
        var writer = ThriftWriter()
        writer.field(1, 2 as Int32)
        writer.beginList(2, count: table.columns.count + 1)
        writer.beginElement()
        writer.field(4, "schema")
        writer.field(5, Int32(table.columns.count))
        writer.end()
        for column in table.columns { element(column, &writer) }
        writer.field(3, Int64(table.count))
        writer.beginList(4, count: groups.count)
        for (chunks, rows) in zip(groups, groupRows) { group(chunks, rows, &writer) }
        writer.beginList(5, count: metadata.count)
        for (key, value) in metadata {
            writer.beginElement()
            writer.field(1, key)
            writer.field(2, value)
            writer.end()
        }
        writer.field(6, "headrace")
        writer.end()
        return writer.bytes
    }

    private func element(_ column: DatasetColumn, _ writer: inout ThriftWriter) {
        writer.beginElement()
        writer.field(1, ParquetFile.type(column.kind))
        writer.field(3, 1 as Int32)
        writer.field(4, column.name)
        switch column.kind {
        case .text:
            writer.field(6, 0 as Int32)
            writer.begin(10)
            writer.begin(1)
            writer.end()
            writer.end()
        case .moment:
            writer.field(6, 9 as Int32)
            writer.begin(10)
            writer.begin(8)
            writer.field(1, true)
            writer.begin(2)
            writer.begin(1)
            writer.end()
            writer.end()
            writer.end()
            writer.end()
        default: break
        }
        writer.end()
    }

    private func group(_ chunks: [Chunk], _ rows: Int, _ writer: inout ThriftWriter) {
        writer.beginElement()
        writer.beginList(1, count: chunks.count)
        for (column, chunk) in zip(table.columns, chunks) {
            writer.beginElement()
            writer.field(2, Int64(chunk.offset))
            writer.begin(3)
            writer.field(1, ParquetFile.type(column.kind))
            writer.list(2, [0, 3])
            writer.list(3, [column.name])
            writer.field(4, 0 as Int32)
            writer.field(5, Int64(rows))
            writer.field(6, Int64(chunk.size))
            writer.field(7, Int64(chunk.size))
            writer.field(9, Int64(chunk.offset))
            writer.begin(12)
            writer.field(3, Int64(chunk.nulls))
            writer.end()
            writer.end()
            writer.end()
        }
        writer.field(2, Int64(chunks.reduce(0) { $0 + $1.size }))
        writer.field(3, Int64(rows))
        writer.end()
    }
}

/// Thrift's compact protocol, as much of it as Parquet's footers need
/// (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md).
struct ThriftWriter {
    private var out = ByteWriter()
    /// Number of the last field of each struct that is open.
    private var last: [Int] = [0]

    var bytes: [UInt8] { out.bytes }

    private mutating func header(_ field: Int, _ type: UInt8) {
        let delta = field - (last[last.count - 1])
        out.append(UInt8(delta) << 4 | type)
        last[last.count - 1] = field
    }

    mutating func field(_ number: Int, _ value: Int32) {
        header(number, 5)
        out.append(varint: Int64(value))
    }

    mutating func field(_ number: Int, _ value: Int64) {
        header(number, 6)
        out.append(varint: value)
    }

    mutating func field(_ number: Int, _ value: Bool) { header(number, value ? 1 : 2) }

    mutating func field(_ number: Int, _ value: String) {
        header(number, 8)
        text(value)
    }

    private mutating func text(_ value: String) {
        out.append(unsigned: UInt64(value.utf8.count))
        out.append([UInt8](value.utf8))
    }

    private mutating func listHeader(_ number: Int, _ count: Int, _ type: UInt8) {
        header(number, 9)
        if count < 15 {
            out.append(UInt8(count) << 4 | type)
        } else {
            out.append(0xF0 | type)
            out.append(unsigned: UInt64(count))
        }
    }

    mutating func list(_ number: Int, _ values: [Int32]) {
        listHeader(number, values.count, 5)
        for value in values { out.append(varint: Int64(value)) }
    }

    mutating func list(_ number: Int, _ values: [String]) {
        listHeader(number, values.count, 8)
        for value in values { text(value) }
    }

    /// A list of structs: each is begun by `beginElement`.
    mutating func beginList(_ number: Int, count: Int) { listHeader(number, count, 12) }

    mutating func beginElement() { last.append(0) }

    /// A struct in a field.
    mutating func begin(_ number: Int) {
        header(number, 12)
        last.append(0)
    }

    /// Ends a struct.
    mutating func end() {
        out.append(0 as UInt8)
        last.removeLast()
    }
}

extension ByteWriter {
    /// LEB128.
    mutating func append(unsigned value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        append(UInt8(rest))
    }
}
