import Base

/// Writes a table as an Apache Arrow IPC file (arrow.apache.org/docs/format/Columnar.html; Schema.fbs, Message.fbs, File.fbs
/// of format 1.0, metadata version 5).
package enum ArrowFile {
    /// Rows of one record batch, and bytes of text in it: offsets have 31 bits.
    package static let batchRows = 1 << 16
    private static let batchBytes = 1 << 28
    private static let version: Int16 = 4

    package static func bytes(_ table: DatasetTable, metadata: [(key: String, value: String)]) -> [UInt8] {
        var out = ByteWriter(capacity: table.count * table.columns.count * 9)
        out.append([UInt8]("ARROW1".utf8) + [0, 0])
        append(message(header: 1, bodyCount: 0) { schema(table, metadata, &$0) }, [], to: &out)
        var blocks: [[Int64]] = []
        for rows in table.groups(rows: batchRows, bytes: batchBytes) {
            var body = Body(rows: rows.count)
            for column in table.columns { body.add(column, rows) }
            let head = message(header: 3, bodyCount: body.bytes.count) { batch(body, &$0) }
            let offset = out.count
            let headCount = append(head, body.bytes.bytes, to: &out)
            // Block: offset i64, metaDataLength i32 with 4 bytes of padding, bodyLength i64.
            blocks.append([Int64(offset), Int64(headCount), Int64(body.bytes.count)])
        }
        out.append(little: UInt32.max)
        out.append(little: 0 as UInt32)
        var footer = FlatBuffer()
        let batches = footer.vector(structs: blocks, size: 3)
        let dictionaries = footer.vector(structs: [], size: 3)
        let root = schema(table, metadata, &footer)
        footer.begin()
        footer.field(0, version)
        footer.field(1, reference: root)
        footer.field(2, reference: dictionaries)
        footer.field(3, reference: batches)
        let bytes = footer.finish(footer.end())
        out.append(bytes)
        out.append(little: Int32(bytes.count))
        out.append([UInt8]("ARROW1".utf8))
        return out.bytes
    }

    private static func message(
        header: UInt8, bodyCount: Int, _ make: (inout FlatBuffer) -> FlatBuffer.Place
    ) -> [UInt8] {
        var buffer = FlatBuffer()
        let content = make(&buffer)
        buffer.begin()
        buffer.field(3, Int64(bodyCount))
        buffer.field(2, reference: content)
        buffer.field(0, version)
        buffer.field(1, header)
        return buffer.finish(buffer.end())
    }

    /// An encapsulated message; the count of everything before its body.
    @discardableResult
    private static func append(_ head: [UInt8], _ body: [UInt8], to out: inout ByteWriter) -> Int {
        out.append(little: UInt32.max)
        out.append(little: Int32(head.count))
        out.append(head)
        out.append(body)
        return 8 + head.count
    }

    // MARK: Schema

    private static func schema(
        _ table: DatasetTable, _ metadata: [(key: String, value: String)], _ buffer: inout FlatBuffer
    ) -> FlatBuffer.Place {
        let fields = table.columns.map { field($0, &buffer) }
        let all = buffer.vector(fields)
        let pairs = metadata.map { key, value in
            let (key, value) = (buffer.text(key), buffer.text(value))
            buffer.begin()
            buffer.field(0, reference: key)
            buffer.field(1, reference: value)
            return buffer.end()
        }
        let custom = buffer.vector(pairs)
        buffer.begin()
        buffer.field(1, reference: all)
        buffer.field(2, reference: custom)
        buffer.field(0, 0 as Int16)
        return buffer.end()
    }

    private static func field(_ column: DatasetColumn, _ buffer: inout FlatBuffer) -> FlatBuffer.Place {
        let name = buffer.text(column.name)
        let children = buffer.vector([])
        let (kind, type) = type(column.kind, &buffer)
        buffer.begin()
        buffer.field(0, reference: name)
        buffer.field(3, reference: type)
        buffer.field(5, reference: children)
        buffer.field(1, true)
        buffer.field(2, kind)
        return buffer.end()
    }

    /// Number and table of a type in the union `Type` of Schema.fbs.
    private static func type(_ kind: DatasetColumn.Kind, _ buffer: inout FlatBuffer) -> (UInt8, FlatBuffer.Place) {
        let zone = kind == .moment ? buffer.text("UTC") : 0
        buffer.begin()
        switch kind {
        case .integer:
            buffer.field(0, 64 as Int32)
            buffer.field(1, true)
            return (2, buffer.end())
        case .double:
            buffer.field(0, 2 as Int16)
            return (3, buffer.end())
        case .text: return (5, buffer.end())
        case .flag: return (6, buffer.end())
        case .moment:
            buffer.field(1, reference: zone)
            buffer.field(0, 1 as Int16)
            return (10, buffer.end())
        }
    }

    // MARK: Batches

    private static func batch(_ body: Body, _ buffer: inout FlatBuffer) -> FlatBuffer.Place {
        let nodes = buffer.vector(structs: body.nodes, size: 2)
        let buffers = buffer.vector(structs: body.buffers, size: 2)
        buffer.begin()
        buffer.field(0, Int64(body.rows))
        buffer.field(1, reference: nodes)
        buffer.field(2, reference: buffers)
        return buffer.end()
    }

    /// Buffers of one record batch, each begun at a multiple of 8 bytes.
    private struct Body {
        let rows: Int
        var bytes = ByteWriter()
        /// Length and missing values of each column.
        var nodes: [[Int64]] = []
        /// Offset and length of each buffer.
        var buffers: [[Int64]] = []

        init(rows: Int) { self.rows = rows }

        private mutating func end(_ from: Int) {
            buffers.append([Int64(from), Int64(bytes.count - from)])
            while bytes.count % 8 != 0 { bytes.append(0 as UInt8) }
        }

        private mutating func bits(_ rows: Range<Int>, _ isSet: (Int) -> Bool) {
            var byte: UInt8 = 0
            for (index, row) in rows.enumerated() {
                if isSet(row) { byte |= 1 << UInt8(index & 7) }
                if index & 7 == 7 || row == rows.upperBound - 1 {
                    bytes.append(byte)
                    byte = 0
                }
            }
        }

        mutating func add(_ column: DatasetColumn, _ rows: Range<Int>) {
            let missing = column.missing.isEmpty ? 0 : rows.reduce(0) { $0 + (column.missing[$1] ? 1 : 0) }
            nodes.append([Int64(rows.count), Int64(missing)])
            var from = bytes.count
            if missing > 0 { bits(rows) { !column.missing[$0] } }
            end(from)
            from = bytes.count
            switch column.values {
            case .doubles(let list): for row in rows { bytes.append(list[row]) }
            case .integers(let list), .moments(let list): for row in rows { bytes.append(little: list[row]) }
            case .flags(let list): bits(rows) { list[$0] }
            case .texts(let list):
                var offset: Int32 = 0
                bytes.append(little: offset)
                for row in rows {
                    offset += Int32(list[row].utf8.count)
                    bytes.append(little: offset)
                }
                end(from)
                from = bytes.count
                for row in rows { bytes.append([UInt8](list[row].utf8)) }
            }
            end(from)
        }
    }
}
