import Base
import Streams

/// A departure, as `flights.departed` tells of it.
package struct Departure: StreamValue {
    package let id: String
    package let carrier: String
    package let origin: String
    package let tail: String?
    /// Minutes behind schedule.
    package let delay: Double?

    private static let keys = (
        id: JSONKey("id"), carrier: JSONKey("carrier"), origin: JSONKey("origin"), tail: JSONKey("tailnum"),
        delay: JSONKey("dep_delay")
    )

    package init(_ fields: FieldReader) throws {
        id = try fields.text(Self.keys.id)
        carrier = try fields.text(Self.keys.carrier)
        origin = try fields.text(Self.keys.origin)
        tail = try fields.optionalText(Self.keys.tail)
        delay = try fields.optionalNumber(Self.keys.delay)
    }

    package func write(to writer: inout JSONWriter) {
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
package struct Arrival: StreamValue {
    package let id: String
    package let dest: String
    package let delay: Double

    private static let keys = (id: JSONKey("id"), dest: JSONKey("dest"), delay: JSONKey("arr_delay"))

    package init(_ fields: FieldReader) throws {
        id = try fields.text(Self.keys.id)
        dest = try fields.text(Self.keys.dest)
        delay = try fields.number(Self.keys.delay)
    }

    package func write(to writer: inout JSONWriter) {
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
