"""From records to pictures: a figure is described once, then drawn as a picture and as charts for the page."""
