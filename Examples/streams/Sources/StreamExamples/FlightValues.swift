import Headrace

/// A departure, as `flights.departed` tells of it.
public struct Departure: StreamValue {
    public let id: String
    public let carrier: String
    public let origin: String
    public let tail: String?
    /// Minutes behind schedule.
    public let delay: Double?

    private static let keys = (
        id: JSONKey("id"), carrier: JSONKey("carrier"), origin: JSONKey("origin"), tail: JSONKey("tailnum"),
        delay: JSONKey("dep_delay")
    )

    public init(_ fields: FieldReader) throws {
        id = try fields.text(Self.keys.id)
        carrier = try fields.text(Self.keys.carrier)
        origin = try fields.text(Self.keys.origin)
        tail = try fields.optionalText(Self.keys.tail)
        delay = try fields.optionalNumber(Self.keys.delay)
    }

    public func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("id")
        writer.value(id)
        writer.key("carrier")
        writer.value(carrier)
        writer.key("origin")
        writer.value(origin)
        writer.key("tailnum")
        if let tail { writer.value(tail) } else { writer.null() }
        writer.key("dep_delay")
        if let delay { writer.value(delay) } else { writer.null() }
        writer.endObject()
    }
}

/// An arrival, as `flights.arrived` tells of it.
public struct Arrival: StreamValue {
    public let id: String
    public let dest: String
    public let delay: Double

    private static let keys = (id: JSONKey("id"), dest: JSONKey("dest"), delay: JSONKey("arr_delay"))

    public init(_ fields: FieldReader) throws {
        id = try fields.text(Self.keys.id)
        dest = try fields.text(Self.keys.dest)
        delay = try fields.number(Self.keys.delay)
    }

    public func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("id")
        writer.value(id)
        writer.key("dest")
        writer.value(dest)
        writer.key("arr_delay")
        writer.value(delay)
        writer.endObject()
    }
}
