import Headrace
import StreamExamples

await Headrace.main(streams: [
    FlightStreams.carrierHours, FlightStreams.flown, FlightStreams.silentAircraft, FlightStreams.carrierDays,
])
