/// Writes a FlatBuffer (google.github.io/flatbuffers, "FlatBuffer Internals"), from its end to its beginning as all writers
/// do, since what is pointed to stands behind what points.
struct FlatBuffer {
    /// The last byte first.
    private var reversed: [UInt8] = []
    /// Of the table that is being written, and where it ends.
    private var fields: [(slot: Int, place: Int)] = []
    private var bottom = 0

    /// Where something stands, counted from the end.
    typealias Place = Int

    private mutating func pad(to alignment: Int, before count: Int) {
        while (reversed.count + count) % alignment != 0 { reversed.append(0) }
    }

    private mutating func push<T: FixedWidthInteger>(_ value: T) {
        var rest = value.bigEndian
        withUnsafeBytes(of: &rest) { reversed.append(contentsOf: $0) }
    }

    private mutating func pushAligned<T: FixedWidthInteger>(_ value: T) {
        pad(to: MemoryLayout<T>.size, before: MemoryLayout<T>.size)
        push(value)
    }

    private mutating func pushReference(_ place: Place) {
        pad(to: 4, before: 4)
        push(UInt32(reversed.count + 4 - place))
    }

    mutating func text(_ text: String) -> Place {
        let bytes = [UInt8](text.utf8)
        pad(to: 4, before: bytes.count + 1)
        reversed.append(0)
        reversed.append(contentsOf: bytes.reversed())
        push(UInt32(bytes.count))
        return reversed.count
    }

    mutating func vector(_ places: [Place]) -> Place {
        pad(to: 4, before: places.count * 4)
        for place in places.reversed() { pushReference(place) }
        push(UInt32(places.count))
        return reversed.count
    }

    /// Structs of numbers of 8 bytes each.
    mutating func vector(structs: [[Int64]], size: Int) -> Place {
        pad(to: 4, before: structs.count * size * 8)
        pad(to: 8, before: structs.count * size * 8)
        for fields in structs.reversed() { for field in fields.reversed() { push(field) } }
        push(UInt32(structs.count))
        return reversed.count
    }

    // MARK: Tables: fields between `begin` and `end`, their contents before

    mutating func begin() {
        fields = []
        bottom = reversed.count
    }

    mutating func field<T: FixedWidthInteger>(_ slot: Int, _ value: T) {
        pushAligned(value)
        fields.append((slot, reversed.count))
    }

    mutating func field(_ slot: Int, _ value: Bool) { field(slot, (value ? 1 : 0) as UInt8) }

    mutating func field(_ slot: Int, reference place: Place) {
        pushReference(place)
        fields.append((slot, reversed.count))
    }

    mutating func end() -> Place {
        pad(to: 4, before: 4)
        push(0 as Int32)
        let table = reversed.count
        let slots = (fields.map(\.slot).max() ?? -1) + 1
        for slot in (0..<slots).reversed() {
            let place = fields.first { $0.slot == slot }?.place
            push(UInt16(place.map { table - $0 } ?? 0))
        }
        push(UInt16(table - bottom))
        push(UInt16(4 + slots * 2))
        let link = Int32(reversed.count - table).littleEndian
        withUnsafeBytes(of: link) { raw in
            for (index, byte) in raw.enumerated() { reversed[table - 1 - index] = byte }
        }
        return table
    }

    /// The whole, a multiple of 8 bytes.
    mutating func finish(_ root: Place) -> [UInt8] {
        pad(to: 8, before: 4)
        pushReference(root)
        return reversed.reversed()
    }
}
