"""What a kWh and a device-hour stand for: PUE, carbon intensity, prices and rated powers, each with source and date.

Importing this package reads no file. `profile` is a named set of factors, `layers` loads one and lays a site's settings
over it, `devices` says what a GRES type means, and `prices`, `cpus` and `carbon` are the look-ups by device, by processor
and by grid.
"""
