"""Icons of the plugin and of its buttons, as SVG that shows on dark and on light."""
